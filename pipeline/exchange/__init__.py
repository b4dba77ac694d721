"""Features in the field's other formats: importing, exporting, and comparing with ours.

feature_files.py   the table of formats; feature_folders.py, feature_archives.py, feature_hdf5.py read and write them
importing.py       into a store; import_timing.py says which interval a row covers
exporting.py       out of a store
comparing.py       two sets of features, video by video and over all; diagnosing.py says what sets them apart,
                   stored_settings.py what their stores say of it
safe_pickles.py    arrays out of pickles, without running what a pickle names
"""
