# Every target is one line that calls what does the work.
.PHONY: dev packages demo demo-unplug test lint unit parts sim storage soak cloud chaos bench bench-growth bench-plan bench-scale bench-agent bench-detect bench-peer soak-guests test-rules clean
PYTHON := .venv/bin/python
# Tests that start servers or processes of their own, and those that simulate for long.
PARTS := tests/ports tests/journal tests/agent tests/conf/test_command.py
SIM := tests/sim tests/guards/test_place_oracle.py
# One real server a driver, which all tests of it share: never side by side.
STORAGE := tests/storage tests/ports/test_storage_contract.py
NOT_FAST := $(PARTS) $(SIM) $(STORAGE)

dev: .venv/ready ## .venv with vmhad editable and its tools

.venv/ready: setup.cfg requirements.txt test-requirements.txt .ci/dev
	.ci/dev

packages: dev ## the Debian packages of bindep.txt, profile test
	.ci/packages

demo: dev packages ## a real small cloud, a dying host, and its VMs back
	$(PYTHON) lab/demo.py

demo-unplug: dev packages ## hosts that lose their power with their BMCs; real guests on a real Ceph; needs root
	$(PYTHON) lab/demo_unplug.py

test: ## all checks: lint, unit tests, drivers, simulator, storages, then the tests on a real small cloud
	.ci/test

lint: dev ## ruff, mypy --strict on the core, the layers
	.ci/lint

unit: dev ## the fast tests
	$(PYTHON) -m pytest -n 3 --dist worksteal $(NOT_FAST:%=--ignore %)

parts: dev ## the drivers and the commands beside real etcd, BMC simulators and engines
	$(PYTHON) -m pytest -n 9 --dist worksteal $(PARTS) $(STORAGE:%=--ignore %)

sim: dev ## the simulated datacentre: its tests, and CI's share of its seeds
	$(PYTHON) -m pytest -n 2 --dist worksteal $(SIM)
	.venv/bin/vmhad-sim seeds --count 300 --jobs 2

storage: dev packages ## every storage driver cuts writers off real servers; figures go to lab/run/storage.json
	$(PYTHON) -m pytest $(STORAGE)

soak: dev ## fresh seeds for as long as one likes; tests/seeds/record.md gets a line a batch
	.ci/soak

cloud: dev packages ## the tests on a real small cloud
	.ci/cloud-tests

chaos: dev packages ## every test on a real small cloud, the long and the rare ones too
	.ci/cloud-tests -m cloud

bench: dev packages ## measures recovery on the lab
	$(PYTHON) tests/bench/run.py

bench-growth: dev ## how a tick's cost and an engine's memory grow with the hosts
	$(PYTHON) tests/bench/growth.py

bench-plan: dev ## what a plan for 800 VMs costs, and what is known of 1,000 hosts before a failure
	$(PYTHON) tests/bench/plan.py

bench-scale: dev packages ## whether one engine hears a thousand agents, and a burst of notifications beside them
	$(PYTHON) tests/bench/scale.py

bench-agent: dev ## what an agent costs its host; needs what lab/cloud up --virt qemu installs
	$(PYTHON) tests/bench/agent_cost.py

bench-detect: dev packages ## how long each kind of failure takes to be known, and to begin to be mended; needs root
	$(PYTHON) tests/bench/detect.py

bench-peer: dev packages ## measures masakari on the same lab
	$(PYTHON) lab/peer/masakari bench

soak-guests: dev packages ## three hosts fail three ways, twenty rounds on each storage; needs root
	VMHAD_CELLS_ROUNDS=20 $(PYTHON) -m pytest -m cloud tests/cloud/test_no_second_writer.py

test-rules: dev packages ## a cloud full of groups loses hosts and racks, with vmhad and with Nova alone; lab/run/rules.json
	$(PYTHON) -m pytest -m cloud tests/cloud/test_rules_kept.py

clean: ## forgets .venv, caches and everything the lab left
	.ci/clean
