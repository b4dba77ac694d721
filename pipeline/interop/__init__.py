"""Import, export and comparison of features in the formats of published code.

formats.py         the table of formats; feature_folders.py, feature_archives.py, feature_hdf5.py read and write them
feature_files.py   opens the features at a path; reading_process.py and reading_child.py parse them in a child process
array_files.py     arrays from .npy data, pickles and torch files
importing.py       import into a store: import_plans.py, import_rows.py, and import_timing.py for the intervals of rows
exporting.py       export from a store: export_planning.py, and export_manifest.py for metadata
comparing.py       comparison of two sets of features; diagnosing.py finds the cause of a difference,
                   stored_settings.py compares the settings of the stores
"""
