# Shorthands. Each one first sets up the environment (see bootstrap.py).
RUN := python3 bootstrap.py --dev

.PHONY: demo test test-slow lint types docs package lock

demo:
	python3 bootstrap.py arabesque demo

test:
	$(RUN) pytest -q -n 2 -m "not slow"

test-slow:
	$(RUN) pytest -q -m slow

lint:
	$(RUN) ruff check .
	$(RUN) ruff format --check .

types:
	$(RUN) pyright

docs:
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict

package:
	$(RUN) python tests/packaging/check_distribution.py

# Pin the newest releases by hash, without download addresses. Users get the versions that the tests use. A new
# dependency needs the two commands without --upgrade.
COMPILE := uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11
lock:
	$(RUN) $(COMPILE) --upgrade --group dev --group docs --extra all pyproject.toml -o requirements-dev.lock
	$(RUN) $(COMPILE) --upgrade --extra all -c requirements-dev.lock pyproject.toml -o requirements.lock
