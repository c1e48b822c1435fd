# SPDX-License-Identifier: Apache-2.0
"""What a Compute behind the port does, as far as the core relies on it: ONE list of cases for every world.

tests/ports/test_compute_contract.py runs CASES on the simulated Nova, tests/cloud/test_compute_contract_on_lab.py on a
real one. What is pinned, and by which case (all on both sides; [rare] only under `make chaos` on the real one):

| fact of Nova 34                                                                | case                               |
|--------------------------------------------------------------------------------|------------------------------------|
| services sorted, an unknown one is None; a heartbeat moves updated_at          | services                           |
| a dead host reads up for a minute, and down without a change of updated_at     | dead_host_reads_up [rare]          |
| our own force-down, disable, enable move updated_at; a repeat does not         | own_changes_look_like_life         |
| disable of a dead host that counts as up: it is so, but no answer in time      | disable_blocks                     |
| evacuate: refused while the service is up, in Nova's words; to itself; to no   | refused                            |
|   host; of a paused server; of none                                            |                                    |
| a record with its target is there when the answer comes; accepted,             | from_record_to_done                |
|   pre-migrating, done in this order; ACTIVE on the old host is no end          |                                    |
| locked servers go; stopped ones stay stopped (2.94); ended: no second time     | from_record_to_done                |
| a target that is disabled or down: NoValidHost, ERROR, migration error; a      | no_valid_host                      |
|   repeat from ERROR works, and a server that was stopped comes up ACTIVE       |                                    |
| a host that was enabled while it was down: NoValidHost for up to a minute      | enabled_too_early                  |
| not idempotent: a twin while the first spawns fails on the target over a       | twin_while_the_first_spawns        |
|   guest that is well, and the server reads ERROR there                         |                                    |
| twins at once: «failed» is not clean, the guest may run on the target; no      | twins_at_once                      |
|   further request gets past the copy there                                     |                                    |
| a target that dies while spawning: pre-migrating for ever, task_state left     | target_dies_while_spawning [rare]  |
| a request waits in a hung host's queue; the conductor finishes the OLDEST      | oldest_record_and_late_reader      |
|   accepted record; a second record stays accepted for ever; a starting         |                                    |
|   nova-compute ends ONE record a server, the newest; what a revived target     |                                    |
|   finds in its queue starts no guest, but leaves the server in ERROR           |                                    |
| a start that a dead host had not read is done when it is back, wherever the    | start_is_read_late                 |
|   server is by then                                                            |                                    |
| after a fast reboot: what Nova found gone it stops itself, told from a user's  | fallen [rare]                      |
| what was done to a server and by whom is there when the answer comes, newest   | actions                            |
|   first; a hard reboot starts what is stopped, too                             |                                    |
| a guest that is gone alone: Nova stops it itself, late; one that was rebooted  | lost_guest                         |
|   meanwhile it leaves alone                                                    |                                    |
| forced_down stays while done records remain; done -> completed on return;      | return_of_the_source               |
|   room counts on both hosts until then                                         |                                    |
| hard affinity: no plain evacuation; by force past the scheduler, never while   | hard_affinity                      |
|   Placement has it on two hosts                                                |                                    |
| anti-affinity: no host that holds a member                                     | anti_affinity                      |
| late group check: of two anti-affinity members sent to one host at the same    | late_check [rare]                  |
|   time the later one ends in ERROR; force does not get past the target's       |                                    |
|   check, nor do two members of hard affinity                                   |                                    |
| live migration: a task when the answer comes, the record a moment later; one   | live_migration                     |
|   guest, never two                                                             |                                    |
| one that the scheduler does not take: a record in error, the server as it was  | live_migration_that_nobody_takes   |
| inventory: groups, member hosts, room                                          | inventory                          |
| groups of servers by id and name, where they are asked for                     | surroundings                       |
| stop and start; start of what runs is refused                                  | stop_and_start                     |
| an API that is away is no answer; what does not exist is None or refused       | away, absent                       |
| evacuate at 2.95 or later leaves all off; force only up to 2.67                | real only: test_nova_driver.py     |
|                                                                                | [rare]; sim: from_record_to_done   |

Times are limits, not measurements.
"""

from __future__ import annotations

from tests.ports import compute_evacuations, compute_groups, compute_migrations, compute_services, compute_twins
from tests.ports.compute_bench import CASES, Bench, Case

__all__ = ["CASES", "Bench", "Case"]

MODULES = (compute_services, compute_evacuations, compute_twins, compute_groups, compute_migrations)
