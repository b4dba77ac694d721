# Shorthands; every one of them sets itself up (see bootstrap.py).
RUN := python3 bootstrap.py

.PHONY: demo test test-slow lint types package lock

demo:
	$(RUN) arabesque demo

test:
	$(RUN) pytest -q -n 2 -m "not slow"

test-slow:
	$(RUN) pytest -q -m slow

lint:
	$(RUN) ruff check .
	$(RUN) ruff format --check .

types:
	$(RUN) pyright

package:
	$(RUN) python tests/packaging/check_distribution.py

# newest releases of everything, pinned by hash, without addresses; users get the versions that the tests run with
COMPILE := uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11
lock:
	$(RUN) $(COMPILE) --upgrade --group dev --extra ray --extra s3 pyproject.toml -o requirements-dev.lock
	$(RUN) $(COMPILE) --upgrade --all-extras -c requirements-dev.lock pyproject.toml -o requirements.lock
