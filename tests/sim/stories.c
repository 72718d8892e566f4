/* SPDX-License-Identifier: Apache-2.0 */
/* Stories: a calm world, one or two faults at chosen moments, and what happens, word by word. */
#include "sim/stories.h"

#define MS     UINT64_C(1000000)
#define SECOND (1000 * MS)

/* How all begins, if nothing goes wrong. */
#define TO_SWITCHOVER           \
    "S runs\n"                  \
    "S says prepare\n"          \
    "D says prepared\n"         \
    "D preparing -> precopy\n"  \
    "S preparing -> precopy\n"  \
    "S pauses\n"                \
    "S says switching\n"        \
    "S precopy -> switchover\n" \
    "D precopy -> switchover\n"

const struct sim_story sim_stories[] = {
    {"a guest moves, and the record with it",
     {.calm = true, .has_record = true},
     TO_SWITCHOVER "S says commit\n"
                   "S switchover -> committing\n"
                   "D switchover -> committing\n"
                   "record S 1 -> D 2\n"
                   "D claim done\n"
                   "D runs\n"
                   "D resume done\n"
                   "D says running\n"
                   "D committing -> finishing\n"
                   "S committing -> finishing\n"
                   "S says finished\n"
                   "D finishing -> completed\n"
                   "S qemu destroyed\n"
                   "S finishing -> completed\n",
     {GW_COMPLETED, GW_OK, D, 2}},
    {"a guest moves without a record",
     {.calm = true},
     TO_SWITCHOVER "S switchover -> committing\n"
                   "S says commit\n"
                   "D switchover -> committing\n"
                   "D runs\n"
                   "D resume done\n"
                   "D says running\n"
                   "D committing -> finishing\n"
                   "S committing -> finishing\n"
                   "S says finished\n"
                   "D finishing -> completed\n"
                   "S qemu destroyed\n"
                   "S finishing -> completed\n",
     {GW_COMPLETED, GW_OK, S, 1}},
    {"a paused guest moves",
     {.calm = true, .has_record = true, .paused = true},
     "S says prepare\n"
     "D says prepared\n"
     "D preparing -> precopy\n"
     "S preparing -> precopy\n"
     "S pauses\n"
     "S says switching\n"
     "S precopy -> switchover\n"
     "D precopy -> switchover\n"
     "S says commit\n"
     "S switchover -> committing\n"
     "D switchover -> committing\n"
     "record S 1 -> D 2\n"
     "D claim done\n"
     "D resume done\n"
     "D says running\n"
     "D committing -> finishing\n"
     "S committing -> finishing\n"
     "S says finished\n"
     "D finishing -> completed\n"
     "S qemu destroyed\n"
     "S finishing -> completed\n",
     {GW_COMPLETED, GW_OK, D, 2}},
    {"a person cancels",
     {.calm = true,
      .has_record = true,
      .n_faults = 1,
      .faults = {{SIM_CANCEL, S, {SIM_AFTER_PHASE, S, GW_PRECOPY, 20 * MS}, 0}}},
     "S runs\n"
     "S says prepare\n"
     "D says prepared\n"
     "D preparing -> precopy\n"
     "S preparing -> precopy\n"
     "S cancels\n"
     "S precopy -> failing\n"
     "S says abort\n"
     "D precopy -> failing\n"
     "stream broken\n"
     "D qemu killed\n"
     "S stop-copy done\n"
     "D says aborted\n"
     "D failing -> cancelled\n"
     "S disarm done\n"
     "S failing -> cancelled\n",
     {GW_CANCELLED, GW_E_CANCELLED, S, 1}},
    {"the destination says no",
     {.calm = true,
      .has_record = true,
      .n_faults = 1,
      .faults = {{SIM_FAIL_OP, D, {SIM_AFTER_SAYING, S, GW_MSG_PREPARE, 0}, 0}}},
     "S runs\n"
     "S says prepare\n"
     "D preparing -> failing\n"
     "D says failed\n"
     "S preparing -> failing\n"
     "S says abort\n"
     "D says aborted\n"
     "D failing -> failed\n"
     "S failing -> failed\n",
     {GW_FAILED, GW_E_QEMU, S, 1}},
    {"the source daemon is killed while memory is copied",
     {.calm = true,
      .has_record = true,
      .n_faults = 1,
      .faults = {{SIM_KILL_DAEMON, S, {SIM_AFTER_PHASE, S, GW_PRECOPY, 20 * MS}, SECOND}}},
     "S runs\n"
     "S says prepare\n"
     "D says prepared\n"
     "D preparing -> precopy\n"
     "S preparing -> precopy\n"
     "S daemon killed\n"
     "D precopy -> failing\n"
     "D says failed\n"
     "D qemu destroyed\n"
     "stream broken\n"
     "D says aborted\n"
     "D failing -> failed\n"
     "S daemon back\n"
     "S stop-copy done\n"
     "S committing -> failing\n"
     "S resume done\n"
     "S disarm done\n"
     "S failing -> failed\n",
     {GW_FAILED, GW_E_STATE, S, 1}},
    {"the destination daemon is killed just before CLAIM",
     {.calm = true,
      .has_record = true,
      .n_faults = 1,
      .faults = {{SIM_KILL_DAEMON, D, {SIM_BEFORE_OP, D, GW_OP_CLAIM, 0}, SECOND}}},
     TO_SWITCHOVER "S says commit\n"
                   "S switchover -> committing\n"
                   "D daemon killed\n"
                   "D daemon back\n"
                   "D judges destroy\n"
                   "D qemu destroyed\n"
                   "S says query\n"
                   "D says failed\n"
                   "D says aborted\n"
                   "record S 1 -> S 2\n"
                   "S reclaim done\n"
                   "S committing -> failing\n"
                   "S runs\n"
                   "S resume done\n"
                   "S disarm done\n"
                   "S failing -> failed\n",
     {GW_FAILED, GW_E_QEMU, S, 2}},
    {"the destination daemon is killed just after CLAIM, and lets the guest run when it is back",
     {.calm = true,
      .has_record = true,
      .n_faults = 1,
      .faults = {{SIM_KILL_DAEMON, D, {SIM_AFTER_OP, D, GW_OP_CLAIM, MS}, SECOND}}},
     TO_SWITCHOVER "S says commit\n"
                   "S switchover -> committing\n"
                   "D switchover -> committing\n"
                   "record S 1 -> D 2\n"
                   "D daemon killed\n"
                   "D daemon back\n"
                   "D judges resume\n"
                   "D runs\n"
                   "S says query\n"
                   "D says running\n"
                   "S committing -> finishing\n"
                   "S says finished\n"
                   "S qemu destroyed\n"
                   "S finishing -> completed\n",
     {GW_COMPLETED, GW_OK, D, 2}},
    {"the destination daemon is killed when it has asked for RESUME",
     {.calm = true,
      .has_record = true,
      .n_faults = 1,
      .faults = {{SIM_KILL_DAEMON, D, {SIM_AFTER_OP, D, GW_OP_RESUME, 0}, SECOND}}},
     TO_SWITCHOVER "S says commit\n"
                   "S switchover -> committing\n"
                   "D switchover -> committing\n"
                   "record S 1 -> D 2\n"
                   "D claim done\n"
                   "D daemon killed\n"
                   "D runs\n"
                   "D daemon back\n"
                   "D judges keep\n"
                   "S says query\n"
                   "D says running\n"
                   "S committing -> finishing\n"
                   "S says finished\n"
                   "S qemu destroyed\n"
                   "S finishing -> completed\n",
     {GW_COMPLETED, GW_OK, D, 2}},
    {"the store cannot be reached at the commit: the guest stays",
     {.calm = true,
      .has_record = true,
      .n_faults = 2,
      .faults = {{SIM_LOSE_STORE, D, {SIM_AFTER_SAYING, S, GW_MSG_COMMIT, 0}, 20 * SECOND},
                 {SIM_LOSE_STORE, S, {SIM_AFTER_SAYING, S, GW_MSG_COMMIT, 0}, 20 * SECOND}}},
     TO_SWITCHOVER "S says commit\n"
                   "S switchover -> committing\n"
                   "store lost for D\n"
                   "store lost for S\n"
                   "D switchover -> committing\n"
                   "D claim unknown\n"
                   "D committing -> failing\n"
                   "D says failed\n"
                   "D qemu destroyed\n"
                   "D says aborted\n"
                   "D failing -> failed\n"
                   "S says query\n"
                   "D says failed\n"
                   "D says aborted\n"
                   "S says query\n"
                   "D says failed\n"
                   "D says aborted\n"
                   "S says query\n"
                   "D says failed\n"
                   "D says aborted\n"
                   "S reclaim unknown\n"
                   "S committing -> failing\n"
                   "S runs\n"
                   "S resume done\n"
                   "S disarm done\n"
                   "S failing -> failed\n",
     {GW_FAILED, GW_E_QEMU, S, 1}},
    {"COMMIT is lost and the source takes the guest back",
     {.calm = true,
      .has_record = true,
      .n_faults = 1,
      .faults = {{SIM_CUT_LINK, S, {SIM_AFTER_SAYING, S, GW_MSG_COMMIT, 0}, 10 * SECOND}}},
     TO_SWITCHOVER "S says commit\n"
                   "S switchover -> committing\n"
                   "link cut\n"
                   "record S 1 -> S 2\n"
                   "S reclaim done\n"
                   "S committing -> failing\n"
                   "S says abort\n"
                   "S runs\n"
                   "S resume done\n"
                   "S disarm done\n"
                   "S failing -> failed\n"
                   "D switchover -> failing\n"
                   "D says failed\n"
                   "D qemu destroyed\n"
                   "D says aborted\n"
                   "D failing -> failed\n",
     {GW_FAILED, GW_E_PEER, S, 2}},
    {"CLAIM never reaches the store: the destination gives up, the source takes the guest back",
     {.calm = true,
      .has_record = true,
      .n_faults = 1,
      .faults = {{SIM_LOSE_REQUEST, D, {SIM_AFTER_PHASE, D, GW_PRECOPY, 0}, 0}}},
     TO_SWITCHOVER "S says commit\n"
                   "S switchover -> committing\n"
                   "D switchover -> committing\n"
                   "D claim unknown\n"
                   "D committing -> failing\n"
                   "D says failed\n"
                   "D qemu destroyed\n"
                   "D says aborted\n"
                   "D failing -> failed\n"
                   "record S 1 -> S 2\n"
                   "S reclaim done\n"
                   "S committing -> failing\n"
                   "S says abort\n"
                   "S runs\n"
                   "S resume done\n"
                   "S disarm done\n"
                   "S failing -> failed\n",
     {GW_FAILED, GW_E_QEMU, S, 2}},
    {"CLAIM was done, but its answer is lost: the destination gives the guest back",
     {.calm = true,
      .has_record = true,
      .n_faults = 1,
      .faults = {{SIM_LOSE_ANSWER, D, {SIM_AFTER_PHASE, D, GW_PRECOPY, 0}, 0}}},
     TO_SWITCHOVER "S says commit\n"
                   "S switchover -> committing\n"
                   "D switchover -> committing\n"
                   "record S 1 -> D 2\n"
                   "D claim unknown\n"
                   "D committing -> failing\n"
                   "D says failed\n"
                   "D qemu destroyed\n"
                   "D says aborted\n"
                   "D failing -> failed\n"
                   "store refuses S\n"
                   "record D 2 -> S 3\n"
                   "S reclaim done\n"
                   "S committing -> failing\n"
                   "S runs\n"
                   "S resume done\n"
                   "S disarm done\n"
                   "S failing -> failed\n",
     {GW_FAILED, GW_E_QEMU, S, 3}},
    {"CLAIM comes late, after RECLAIM",
     {.calm = true,
      .has_record = true,
      .n_faults = 1,
      .faults = {{SIM_LATE_REQUEST, D, {SIM_AFTER_PHASE, D, GW_PRECOPY, 0}, 10 * SECOND}}},
     TO_SWITCHOVER "S says commit\n"
                   "S switchover -> committing\n"
                   "D switchover -> committing\n"
                   "D claim unknown\n"
                   "D committing -> failing\n"
                   "D says failed\n"
                   "D qemu destroyed\n"
                   "D says aborted\n"
                   "D failing -> failed\n"
                   "record S 1 -> S 2\n"
                   "S reclaim done\n"
                   "S committing -> failing\n"
                   "S says abort\n"
                   "S runs\n"
                   "S resume done\n"
                   "S disarm done\n"
                   "S failing -> failed\n"
                   "store refuses D\n",
     {GW_FAILED, GW_E_QEMU, S, 2}},
    {"the answer to RECLAIM is lost: the record is asked again, and is the source's already",
     {.calm = true,
      .has_record = true,
      .n_faults = 2,
      .faults = {{SIM_CUT_LINK, S, {SIM_AFTER_SAYING, S, GW_MSG_COMMIT, 0}, 10 * SECOND},
                 {SIM_LOSE_ANSWER, S, {SIM_AFTER_PHASE, S, GW_SWITCHOVER, 0}, 0}}},
     TO_SWITCHOVER "S says commit\n"
                   "S switchover -> committing\n"
                   "link cut\n"
                   "record S 1 -> S 2\n"
                   "D switchover -> failing\n"
                   "D says failed\n"
                   "S reclaim unknown\n"
                   "D qemu destroyed\n"
                   "D says aborted\n"
                   "D failing -> failed\n"
                   "store refuses S\n"
                   "S reclaim done\n"
                   "S committing -> failing\n"
                   "S runs\n"
                   "S resume done\n"
                   "S disarm done\n"
                   "S failing -> failed\n",
     {GW_FAILED, GW_E_PEER, S, 2}},
    {"RUNNING is late: the record says who runs it, the destination that it does",
     {.calm = true,
      .has_record = true,
      .n_faults = 1,
      .faults = {{SIM_CUT_LINK, S, {SIM_AFTER_OP, D, GW_OP_CLAIM, 0}, 10 * SECOND}}},
     TO_SWITCHOVER "S says commit\n"
                   "S switchover -> committing\n"
                   "D switchover -> committing\n"
                   "link cut\n"
                   "record S 1 -> D 2\n"
                   "D claim done\n"
                   "D runs\n"
                   "D resume done\n"
                   "D says running\n"
                   "D committing -> finishing\n"
                   "store refuses S\n"
                   "S reclaim conflict\n"
                   "S says query\n"
                   "D finishing -> completed\n"
                   "S says query\n"
                   "D says running\n"
                   "S committing -> finishing\n"
                   "S says finished\n"
                   "S qemu destroyed\n"
                   "S finishing -> completed\n",
     {GW_COMPLETED, GW_OK, D, 2}},
    {"both daemons are killed just after CLAIM",
     {.calm = true,
      .has_record = true,
      .n_faults = 2,
      .faults = {{SIM_KILL_DAEMON, D, {SIM_AFTER_OP, D, GW_OP_CLAIM, MS}, SECOND},
                 {SIM_KILL_DAEMON, S, {SIM_AFTER_OP, D, GW_OP_CLAIM, MS}, 2 * SECOND}}},
     TO_SWITCHOVER "S says commit\n"
                   "S switchover -> committing\n"
                   "D switchover -> committing\n"
                   "record S 1 -> D 2\n"
                   "D daemon killed\n"
                   "S daemon killed\n"
                   "D daemon back\n"
                   "D judges resume\n"
                   "D runs\n"
                   "S daemon back\n"
                   "S says query\n"
                   "D says running\n"
                   "S committing -> finishing\n"
                   "S says finished\n"
                   "S qemu destroyed\n"
                   "S finishing -> completed\n",
     {GW_COMPLETED, GW_OK, D, 2}},
    {"the source daemon is killed after COMMIT, before the journal knows",
     {.calm = true,
      .has_record = true,
      .n_faults = 1,
      .faults = {{SIM_KILL_DAEMON, S, {SIM_BEFORE_PHASE, S, GW_COMMITTING, 0}, SECOND}}},
     TO_SWITCHOVER "S says commit\n"
                   "S daemon killed\n"
                   "D switchover -> committing\n"
                   "record S 1 -> D 2\n"
                   "D claim done\n"
                   "D runs\n"
                   "D resume done\n"
                   "D says running\n"
                   "D committing -> finishing\n"
                   "S daemon back\n"
                   "S stop-copy done\n"
                   "store refuses S\n"
                   "S reclaim conflict\n"
                   "S says query\n"
                   "D says running\n"
                   "S committing -> finishing\n"
                   "S says finished\n"
                   "D finishing -> completed\n"
                   "S qemu destroyed\n"
                   "S finishing -> completed\n",
     {GW_COMPLETED, GW_OK, D, 2}},
    {"the source daemon is killed in the switchover; QEMU gives up when all is loaded over there",
     {.calm = true,
      .has_record = true,
      .n_faults = 3,
      .faults =
          {{SIM_CUT_LINK, S, {SIM_AFTER_PHASE, S, GW_SWITCHOVER, 4 * MS + MS / 2}, 2 * SECOND},
           {SIM_KILL_DAEMON,
            S,
            {SIM_AFTER_PHASE, S, GW_SWITCHOVER, 4 * MS + MS / 2},
            2 * SECOND + 100 * MS},
           {SIM_BREAK_STREAM, S, {SIM_AFTER_PHASE, S, GW_SWITCHOVER, 4 * MS + MS / 2}, 0}}},
     TO_SWITCHOVER "link cut\n"
                   "S daemon killed\n"
                   "stream broken\n"
                   "S runs\n"
                   "S daemon back\n"
                   "S stop-copy done\n"
                   "S committing -> failing\n"
                   "S resume done\n"
                   "S disarm done\n"
                   "S failing -> failed\n"
                   "D switchover -> failing\n"
                   "D says failed\n"
                   "D qemu destroyed\n"
                   "D says aborted\n"
                   "D failing -> failed\n",
     {GW_FAILED, GW_E_STATE, S, 1}},
    {"the source's journal cannot be written any more, and its daemon is killed when all is over",
     {.calm = true,
      .has_record = true,
      .n_faults = 2,
      .faults = {{SIM_LOSE_JOURNAL, S, {SIM_AFTER_PHASE, S, GW_PRECOPY, 0}, 60 * SECOND},
                 {SIM_KILL_DAEMON, S, {SIM_BEFORE_PHASE, S, GW_FINISHING, 0}, SECOND}}},
     "S runs\n"
     "S says prepare\n"
     "D says prepared\n"
     "D preparing -> precopy\n"
     "S preparing -> precopy\n"
     "journal lost for S\n"
     "S pauses\n"
     "S says switching\n"
     "S precopy -> switchover\n"
     "D precopy -> switchover\n"
     "S says commit\n"
     "S switchover -> committing\n"
     "D switchover -> committing\n"
     "record S 1 -> D 2\n"
     "D claim done\n"
     "D runs\n"
     "D resume done\n"
     "D says running\n"
     "D committing -> finishing\n"
     "S daemon killed\n"
     "D finishing -> completed\n"
     "S daemon back\n"
     "S stop-copy done\n"
     "store refuses S\n"
     "S reclaim conflict\n"
     "S says query\n"
     "D says running\n"
     "S committing -> finishing\n"
     "S says finished\n"
     "S qemu destroyed\n"
     "S finishing -> completed\n",
     {GW_COMPLETED, GW_OK, D, 2}},
    {"without a record and without a journal nobody commits",
     {.calm = true,
      .n_faults = 1,
      .faults = {{SIM_LOSE_JOURNAL, S, {SIM_AFTER_PHASE, S, GW_PRECOPY, 0}, 60 * SECOND}}},
     "S runs\n"
     "S says prepare\n"
     "D says prepared\n"
     "D preparing -> precopy\n"
     "S preparing -> precopy\n"
     "journal lost for S\n"
     "S pauses\n"
     "S says switching\n"
     "S precopy -> switchover\n"
     "D precopy -> switchover\n"
     "S switchover -> committing\n"
     "S committing -> failing\n"
     "S says abort\n"
     "D switchover -> failing\n"
     "S runs\n"
     "S resume done\n"
     "D qemu destroyed\n"
     "D says aborted\n"
     "D failing -> cancelled\n"
     "S disarm done\n"
     "S failing -> failed\n",
     {GW_FAILED, GW_E_SYSTEM, S, 1}},
    {"a destination that cannot journal the commit gives the guest back",
     {.calm = true,
      .n_faults = 1,
      .faults = {{SIM_LOSE_JOURNAL, D, {SIM_AFTER_PHASE, D, GW_SWITCHOVER, 0}, 60 * SECOND}}},
     TO_SWITCHOVER "journal lost for D\n"
                   "S switchover -> committing\n"
                   "S says commit\n"
                   "D switchover -> committing\n"
                   "D committing -> failing\n"
                   "D says failed\n"
                   "S committing -> failing\n"
                   "S says abort\n"
                   "D qemu destroyed\n"
                   "D says aborted\n"
                   "D failing -> failed\n"
                   "S runs\n"
                   "S resume done\n"
                   "S disarm done\n"
                   "S failing -> failed\n",
     {GW_FAILED, GW_E_QEMU, S, 1}},
    {"the source's QEMU is killed after COMMIT",
     {.calm = true,
      .has_record = true,
      .n_faults = 1,
      .faults = {{SIM_KILL_QEMU, S, {SIM_AFTER_SAYING, S, GW_MSG_COMMIT, 0}, 0}}},
     TO_SWITCHOVER "S says commit\n"
                   "S switchover -> committing\n"
                   "S qemu killed\n"
                   "D switchover -> committing\n"
                   "record S 1 -> D 2\n"
                   "D claim done\n"
                   "D runs\n"
                   "D resume done\n"
                   "D says running\n"
                   "D committing -> finishing\n"
                   "S committing -> finishing\n"
                   "S says finished\n"
                   "D finishing -> completed\n"
                   "S finishing -> completed\n",
     {GW_COMPLETED, GW_OK, D, 2}},
    {"the destination's QEMU is killed before CLAIM",
     {.calm = true,
      .has_record = true,
      .n_faults = 1,
      .faults = {{SIM_KILL_QEMU, D, {SIM_AFTER_SAYING, S, GW_MSG_COMMIT, 0}, 0}}},
     TO_SWITCHOVER "S says commit\n"
                   "S switchover -> committing\n"
                   "D qemu killed\n"
                   "D switchover -> failing\n"
                   "D says failed\n"
                   "D says aborted\n"
                   "D failing -> failed\n"
                   "record S 1 -> S 2\n"
                   "S reclaim done\n"
                   "S committing -> failing\n"
                   "S says abort\n"
                   "S runs\n"
                   "S resume done\n"
                   "S disarm done\n"
                   "S failing -> failed\n",
     {GW_FAILED, GW_E_QEMU, S, 2}},
    {"the destination's QEMU is killed after CLAIM, before it let the guest run",
     {.calm = true,
      .has_record = true,
      .n_faults = 1,
      .faults = {{SIM_KILL_QEMU, D, {SIM_AFTER_OP, D, GW_OP_CLAIM, 0}, 0}}},
     TO_SWITCHOVER "S says commit\n"
                   "S switchover -> committing\n"
                   "D switchover -> committing\n"
                   "D qemu killed\n"
                   "D committing -> failing\n"
                   "D says failed\n"
                   "record S 1 -> D 2\n"
                   "D claim done\n"
                   "store refuses S\n"
                   "D says aborted\n"
                   "D failing -> failed\n"
                   "record D 2 -> S 3\n"
                   "S reclaim done\n"
                   "S committing -> failing\n"
                   "S says abort\n"
                   "S runs\n"
                   "S resume done\n"
                   "S disarm done\n"
                   "S failing -> failed\n",
     {GW_FAILED, GW_E_QEMU, S, 3}},
    {"both QEMUs are killed at the commit",
     {.calm = true,
      .has_record = true,
      .n_faults = 2,
      .faults = {{SIM_KILL_QEMU, S, {SIM_AFTER_SAYING, S, GW_MSG_COMMIT, 0}, 0},
                 {SIM_KILL_QEMU, D, {SIM_AFTER_OP, D, GW_OP_RESUME, 0}, 0}}},
     TO_SWITCHOVER "S says commit\n"
                   "S switchover -> committing\n"
                   "S qemu killed\n"
                   "D switchover -> committing\n"
                   "record S 1 -> D 2\n"
                   "D claim done\n"
                   "D qemu killed\n"
                   "D resume failed\n"
                   "D says lost\n"
                   "D committing -> failed\n"
                   "S committing -> failed\n",
     {GW_FAILED, GW_E_UNRESOLVED, D, 2}},
    {"the power of the destination fails when the guest has just begun to run, and the journal is "
     "torn",
     {.calm = true,
      .has_record = true,
      .n_faults = 1,
      .faults = {{SIM_POWER_CUT, D, {SIM_AFTER_OP, D, GW_OP_RESUME, MS}, SECOND}}},
     TO_SWITCHOVER "S says commit\n"
                   "S switchover -> committing\n"
                   "D switchover -> committing\n"
                   "record S 1 -> D 2\n"
                   "D claim done\n"
                   "D runs\n"
                   "D power cut\n"
                   "D qemu killed\n"
                   "D daemon back\n"
                   "D judges lost\n"
                   "store refuses S\n"
                   "S reclaim conflict\n"
                   "S says query\n"
                   "S says query\n"
                   "D says lost\n"
                   "S committing -> failed\n",
     {GW_FAILED, GW_E_UNRESOLVED, D, 2}},
    {"without a record: the destination is silent, and a person has to look",
     {.calm = true,
      .n_faults = 1,
      .faults = {{SIM_CUT_LINK, S, {SIM_AFTER_SAYING, S, GW_MSG_COMMIT, 0}, 70 * SECOND}}},
     TO_SWITCHOVER "S switchover -> committing\n"
                   "S says commit\n"
                   "link cut\n"
                   "D switchover -> failing\n"
                   "D says failed\n"
                   "D qemu destroyed\n"
                   "D says aborted\n"
                   "D failing -> failed\n"
                   "S committing -> failed\n",
     {GW_FAILED, GW_E_UNRESOLVED, S, 1}},
    {"without a record: the answer to COMMIT is late",
     {.calm = true,
      .n_faults = 1,
      .faults = {{SIM_CUT_LINK, S, {SIM_AFTER_OP, D, GW_OP_RESUME, 0}, 10 * SECOND}}},
     TO_SWITCHOVER "S switchover -> committing\n"
                   "S says commit\n"
                   "D switchover -> committing\n"
                   "link cut\n"
                   "D runs\n"
                   "D resume done\n"
                   "D says running\n"
                   "D committing -> finishing\n"
                   "D finishing -> completed\n"
                   "S says query\n"
                   "D says running\n"
                   "S committing -> finishing\n"
                   "S says finished\n"
                   "S qemu destroyed\n"
                   "S finishing -> completed\n",
     {GW_COMPLETED, GW_OK, S, 1}},
};

const unsigned n_sim_stories = sizeof sim_stories / sizeof sim_stories[0];
