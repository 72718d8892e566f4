#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Does the simulator find what it is there to find? Each mutant is the machines, or the world's driver,
with one rule taken out; for each the simulator must break an invariant.

Usage: mutate.py [-j N] [WORD…]: only the mutants whose names contain a WORD. Prints a line for each,
with the seed that found it (`test_sim SEED` in that mutant's tree would show it); exits 1 if one lives.
"""
import concurrent.futures
import glob
import os
import re
import subprocess
import sys
import tempfile
import time

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
SEEDS = 400000
CC = os.environ.get('CC', 'cc').split()
FLAGS = ['-std=gnu11', '-O1', '-w', '-D_GNU_SOURCE', '-fno-strict-aliasing']
SOURCES = sorted(os.path.relpath(path, REPO) for pattern in
                 ('engine/core/*.c', 'engine/util/error.c', 'tests/sim/*.c')
                 for path in glob.glob(f'{REPO}/{pattern}'))
SOURCE, DESTINATION, MACHINE = (f'engine/core/{name}.c' for name in ('source', 'destination', 'machine'))
DAEMON, ARRIVAL = 'tests/sim/daemon.c', 'tests/sim/arrival.c'

# name, file, what is there, what stands there instead. What is there must be there exactly once.
MUTANTS = [
    # the record
    ('reclaim: no swap, the source just comes back', SOURCE,
     '            reclaim(m, u);\n        if (m->retry', '            { come_back(m, u); return; }\n        if (m->retry'),
    ('reclaim: a conflict counts as ours', SOURCE,
     'if (!ev->error || (m->by_word && !ev->done.conflict))', 'if (!ev->error || ev->done.conflict)'),
    ('reclaim: not known counts as ours', SOURCE,
     'if (!ev->error || (m->by_word && !ev->done.conflict))', 'if (!ev->error || !ev->done.conflict)'),
    ('reclaim: never tried without the word', SOURCE,
     'm->has_record ? m->now_ns + m->limits.reclaim_ns : UINT64_MAX', 'UINT64_MAX'),
    ('claim: left out', DESTINATION, '    if (m->has_record)\n', '    if (false)\n'),
    ('claim: an unknown one counts as done', DESTINATION,
     'if (is_done(ev, GW_OP_CLAIM) && !ev->error)',
     'if (is_done(ev, GW_OP_CLAIM) && (!ev->error || !ev->done.conflict))'),
    ('claim: any answer will do', DESTINATION,
     'if (is_done(ev, GW_OP_CLAIM) && !ev->error)', 'if (is_done(ev, GW_OP_CLAIM))'),
    # the barrier
    ('barrier: COMMIT before QEMU has completed', SOURCE,
     'if (m->qemu_status == GW_QEMU_COMPLETED && !m->ops)', 'if (!m->ops)'),
    ('barrier: COMMIT without VERIFY', SOURCE, '    if (m->verify && !m->verified)\n', '    if (false)\n'),
    ('barrier: COMMIT whatever VERIFY has found', SOURCE,
     '(is_done(ev, GW_OP_VERIFY) && !ev->error);', 'is_done(ev, GW_OP_VERIFY);'),
    ('barrier: the destination takes what it has not loaded', DESTINATION,
     '    if (m->loaded)\n', '    if (true)\n'),
    ('barrier: RESUME before COMMIT', DESTINATION,
     'if (is_message(ev, GW_MSG_COMMIT) || is_message(ev, GW_MSG_QUERY)) {',
     'if (m->loaded || is_message(ev, GW_MSG_COMMIT) || is_message(ev, GW_MSG_QUERY)) {'),
    ('barrier: the source destroys its copy before RUNNING', SOURCE,
     'case GW_MSG_BUSY: m->retry_at_ns', 'case GW_MSG_BUSY: go(m, GW_FINISHING, u); return 0; m->retry_at_ns'),
    # undoing; ABORTED is not here: a destination that has undone all hangs up, which says the same
    ('undo: no ABORT', SOURCE, '        send_message(u, GW_MSG_ABORT);\n', '        ;\n'),
    ('undo: no STOP_COPY', SOURCE,
     '    if (m->copying) {\n        begin_op(m, GW_OP_STOP_COPY, u);\n    } else if',
     '    if'),
    ('undo: no RESUME', SOURCE, '} else if (m->paused && m->guest_runs) {', '} else if (false) {'),
    ('undo: no DISARM', SOURCE, '    } else if (m->armed) {\n', '    } else if (false) {\n'),
    ('undo: no FAILED', DESTINATION, '    if (!m->told)\n        send_message(u, GW_MSG_FAILED);\n', ''),
    ('undo: no DESTROY', DESTINATION,
     '    if (!m->ops)\n        begin_op(m, GW_OP_DESTROY, u);\n', '    end_failed(m, u);\n'),
    ('undo: a lost connection is no reason', DESTINATION,
     'if (m->phase != GW_COMMITTING)\n            fail(m, ev->error, u);', ';'),
    ('undo: in the middle of an operation', DESTINATION,
     'static void undo(struct gw_machine *m, struct gw_update *u)\n{\n    if (!m->ops)\n',
     'static void undo(struct gw_machine *m, struct gw_update *u)\n{\n    if (!(m->ops & (1u << GW_OP_DESTROY)))\n'),
    # words
    ('word: FAILED of a guest that may have run', DESTINATION,
     '        lost(m, ev->error, u);\n', '        fail(m, ev->error, u);\n'),
    ('word: FAILED while RESUME is under way', DESTINATION, '    if (m->let_run)\n        return is_done(ev, GW_OP_RESUME) ? resume_done(m, ev, u) : 0;',
     '    if (is_done(ev, GW_OP_RESUME))\n        return resume_done(m, ev, u);'),
    ('word: LOST gives the guest back', SOURCE, 'case GW_MSG_LOST:\n', 'case GW_MSG_LOST: fail(m, ev->error, u); return 0;\n'),
    ('word: FAILED does not count', SOURCE, '    m->peer_failed = true;\n', ''),
    ('word: the source cancels after COMMIT', SOURCE, '    case GW_EV_QEMU_GONE: return 0; /* this copy',
     '    case GW_EV_QEMU_GONE: return 0; case GW_EV_CANCEL: fail(m, ev->error, u); return 0; /* this copy'),
    # restarts
    ('restart: COMMITTING is journaled late without a record', MACHINE,
     '(phase == GW_COMMITTING && m->has_record)', 'phase == GW_COMMITTING'),
    ('restart: FAILING is journaled late', MACHINE,
     'return phase == GW_SWITCHOVER || (', 'return phase == GW_SWITCHOVER || phase == GW_FAILING || ('),
    ('restart: the destination is asked in the switchover', MACHINE,
     'bool was_said = phase == GW_COMMITTING;', 'bool was_said = true;'),
    ('restart: in the switchover all is undone, as without a record', MACHINE,
     'if (phase < GW_COMMITTING && m->has_record)', 'if (false)'),
    ('restart: the journal is believed when it says precopy', MACHINE,
     'if (phase < GW_COMMITTING && m->has_record)', 'if (phase == GW_SWITCHOVER && m->has_record)'),
    ('restart: QEMU that has completed comes back without asking', SOURCE,
     '    if (ev->error || ev->done.completed)\n        reclaim', '    if (ev->error)\n        reclaim'),
    ('restart: a QEMU that says nothing has not completed', SOURCE,
     '    if (ev->error || ev->done.completed)\n        reclaim', '    if (ev->done.completed)\n        reclaim'),
    ('restart: a lost copy is no reason to ask the store again', SOURCE,
     '(!m->has_qemu && !m->unsure)', '!m->has_qemu'),
    ('restart: after COMMIT all is undone', MACHINE,
     '    if (phase == GW_COMMITTING) {\n        resume', '    if (false) {\n        resume'),
    ('restart: no STOP_COPY', SOURCE, '    begin_op(m, was_said ? GW_OP_CONNECT : GW_OP_STOP_COPY, u);\n',
     '    if (was_said) begin_op(m, GW_OP_CONNECT, u); else reclaim(m, u);\n'),
    ('judge: THEIRS is resumed', MACHINE,
     'case GW_ARRIVAL_RECORD_THEIRS: return GW_ARRIVAL_DESTROY;', 'case GW_ARRIVAL_RECORD_THEIRS: return GW_ARRIVAL_RESUME;'),
    ('judge: a record that is not known is theirs', MACHINE,
     'default: return GW_ARRIVAL_ASK;', 'default: return GW_ARRIVAL_DESTROY;'),
    ('judge: a guest that is gone never ran', MACHINE,
     'return qemu == GW_ARRIVAL_QEMU_GONE ? GW_ARRIVAL_LOST : GW_ARRIVAL_DESTROY;\n    case GW_ARRIVAL_RECORD_THEIRS',
     'return GW_ARRIVAL_DESTROY;\n    case GW_ARRIVAL_RECORD_THEIRS'),
    ('judge: a guest that runs is destroyed', MACHINE,
     '        return GW_ARRIVAL_KEEP;\n    if', '        return GW_ARRIVAL_DESTROY;\n    if'),
    ('judge: a silent guest that is ours is destroyed', MACHINE,
     'record == GW_ARRIVAL_RECORD_OURS ? GW_ARRIVAL_WAIT', 'false ? GW_ARRIVAL_WAIT'),
    ('judge: a silent guest of which the record is not known is destroyed', MACHINE,
     '    if (record == GW_ARRIVAL_RECORD_UNKNOWN)\n        return GW_ARRIVAL_ASK;',
     '    if (record == GW_ARRIVAL_RECORD_UNKNOWN)\n        return GW_ARRIVAL_DESTROY;'),
    ('judge: PRECOPY is always destroyed', MACHINE,
     'if (record == GW_ARRIVAL_NO_RECORD || qemu != GW_ARRIVAL_QEMU_GONE)', 'if (true)'),
    ('judge: FAILING looks at the record', MACHINE,
     'default: return GW_ARRIVAL_DESTROY; /* FAILING', 'default: return record ? judge_record(qemu, record) : GW_ARRIVAL_DESTROY; /* FAILING'),
    # drivers
    ('driver: RECLAIM takes the destination\'s record without its word', DAEMON,
     'd->m.peer_failed && now.node == D', 'now.node == D'),
    ('driver: RECLAIM by word stops at {S, e}', DAEMON,
     'if (conflict && op == GW_OP_RECLAIM &&', 'if (false &&'),
    ('driver: a RECLAIM that happened before is not recognised', DAEMON,
     'if (ours && now.epoch > begun.epoch)', 'if (false)'),
    ('driver: FAILED is said before the journal knows', ARRIVAL,
     '        says(w, GW_MSG_BUSY);\n', '        says(w, GW_MSG_FAILED);\n'),
    ('driver: COMMIT leaves though it was not journaled', DAEMON,
     'return written || to != GW_COMMITTING || gw_machine_journals_late(m, to);', 'return true;'),
    ('driver: no row means that nothing happened', ARRIVAL, 'phase == GW_PHASE_MAX || is_unresolved(j)', 'is_unresolved(j)'),
]


def run(argv, **more):
    return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **more)


def compile_one(place, path, text, output):
    """Compiles a file of the tree, or text in its place."""
    if text is not None:
        copy = f'{place}/{os.path.basename(output)}.c'
        with open(copy, 'w', encoding='utf-8') as target:
            target.write(text)
    done = run([*CC, *FLAGS, *(f'-I{REPO}/{d}' for d in ('engine', 'engine/include', 'tests', '.')),
                '-c', copy if text is not None else f'{REPO}/{path}', '-o', output])
    if done.returncode != 0:
        raise SystemExit(f'{path} does not compile:\n{done.stdout}')


def link(objects, program):
    done = run([*CC, *objects, '-lcmocka', '-o', program])
    if done.returncode != 0:
        raise SystemExit(f'cannot link {program}:\n{done.stdout}')


def seek(program):
    """The simulator's line on the first seed that breaks an invariant; None if there is none."""
    done = run([program, '--seek', str(SEEDS)], timeout=300)
    found = re.search(r'^seed .*$', done.stdout, re.MULTILINE)
    return found.group(0) if found else None


def try_mutant(place, objects, number):
    name, path, old, new = MUTANTS[number]
    with open(f'{REPO}/{path}', encoding='utf-8') as source:
        text = source.read()
    if text.count(old) != 1:
        raise SystemExit(f'{name}: stands {text.count(old)} times in {path}: {old!r}')
    output, program = f'{place}/mutant{number}.o', f'{place}/mutant{number}'
    compile_one(place, path, text.replace(old, new), output)
    link([output if source == path else object for source, object in objects.items()], program)
    return name, seek(program)


def main(arguments):
    jobs = int(arguments.pop(1)) if arguments[:1] == ['-j'] else 1
    arguments = arguments[1:] if arguments[:1] == ['-j'] else arguments
    wanted = [i for i, mutant in enumerate(MUTANTS)
              if not arguments or any(word in mutant[0] for word in arguments)]
    began, n_alive = time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix='godwit-mutants-') as place, \
            concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        objects = {path: f'{place}/{path.replace("/", "-")}.o' for path in SOURCES}
        list(pool.map(lambda path: compile_one(place, path, None, objects[path]), SOURCES))
        link(objects.values(), f'{place}/original')
        healthy = seek(f'{place}/original') is None
        if not healthy:
            print('the simulator finds something without any mutation: see test_sim')
        for name, found in pool.map(lambda i: try_mutant(place, objects, i), wanted):
            print(f'{name}: {found or "NOT FOUND"}', flush=True)
            n_alive += found is None
    print(f'{len(wanted)} mutants, {len(wanted) - n_alive} found, in {time.monotonic() - began:.0f} s')
    return 0 if healthy and wanted and not n_alive else 1


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
