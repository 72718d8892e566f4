/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"

static const struct gw_option stop_options[GW_OPTIONS_MAX + 1] = {
    {"force", NULL, "end QEMU at once instead of asking the guest to power off", GW_OPTION_FLAG},
    {0},
};

static const struct gw_option adopt_options[GW_OPTIONS_MAX + 1] = {
    {"qmp", "PATH", "the unix socket of its QMP monitor", GW_OPTION_TEXT, .required = true},
    {"pid", "PID", "the process", GW_OPTION_COUNT, .required = true, .min = 2, .max = 4194304},
    {"name", "NAME", "its name from now on (default: the name that QEMU has)", GW_OPTION_TEXT},
    {0},
};

static const struct gw_option check_options[GW_OPTIONS_MAX + 1] = {
    {"to", "NODE", "where it would go", GW_OPTION_TEXT, .required = true},
    {0},
};

static const struct gw_option migrate_options[GW_OPTIONS_MAX + 1] = {
    {"to", "NODE", "where it goes", GW_OPTION_TEXT, .required = true},
    {"policy", "NAME", "the policy that steers it", GW_OPTION_TEXT},
    {"route", "auto|native|carrier", "how the pages travel", GW_OPTION_CHOICE},
    {"transport", "TRANSPORT", "of the carrier: tcp, or tcp?plain=yes without encryption",
     GW_OPTION_TEXT},
    {"codec", "auto|none|zstd", "how they are compressed", GW_OPTION_CHOICE},
    {"bandwidth", "RATE", "at most so much: 1gbit, 100MiB/s, unlimited", GW_OPTION_RATE},
    {"blackout", "MS", "the longest pause of the guest to aim for", GW_OPTION_MS, .min = 1,
     .max = 60 * 1000},
    {"channels", "N", "connections that carry pages", GW_OPTION_COUNT, .min = 1, .max = 64},
    {"timeout", "S", "give up after so long; the guest stays where it is", GW_OPTION_S, .min = 1000,
     .max = 7ull * 86400 * 1000},
    {"verify", NULL, "compare the memory on both nodes before the guest runs there",
     GW_OPTION_FLAG},
    {"prefault", NULL, "take all of its memory there before the copy begins", GW_OPTION_FLAG},
    {"reconnect", "S", "look so long for a godwitd that went away (default 15)", GW_OPTION_S,
     .max = 86400 * 1000},
    {"progress", NULL, "tell on stderr how it is doing (default on a terminal)", GW_OPTION_FLAG},
    {0},
};

static const struct gw_option migration_set_options[GW_OPTIONS_MAX + 1] = {
    {"bandwidth", "RATE", "at most so much from now on: 1gbit, 100MiB/s, unlimited", GW_OPTION_RATE,
     .required = true},
    {0},
};

static const struct gw_option resolve_options[GW_OPTIONS_MAX + 1] = {
    {"resume", NULL, "let the copy that is paused here run", GW_OPTION_FLAG},
    {"discard", NULL, "end the copy that is paused here", GW_OPTION_FLAG},
    {"release", NULL, "delete the record of a guest that is gone", GW_OPTION_FLAG},
    {"fence", NULL, "keep the other node's QEMU from the disks on RBD", GW_OPTION_FLAG},
    {"image", "IMAGE", "a disk on RBD, if it is on no node any more", GW_OPTION_TEXT},
    {"pool", "POOL", "where its disks on RBD are, if it is on no node any more", GW_OPTION_TEXT},
    {"dead", "NODE", "you have made sure that no QEMU of the guest is left there", GW_OPTION_TEXT},
    {0},
};

static const struct gw_option invite_options[GW_OPTIONS_MAX + 1] = {
    {"ttl", "TIME", "how long the token is good, such as 15m", GW_OPTION_S, .min = 1000,
     .max = 7ull * 86400 * 1000},
    {0},
};

static const struct gw_option identity_options[GW_OPTIONS_MAX + 1] = {
    {"name", "NAME", "what this node is called (default: its host name)", GW_OPTION_TEXT},
    {"address", "ADDRESS", "where the other nodes reach its godwitd", GW_OPTION_TEXT},
    {"migration-address", "ADDRESS", "where guests arrive (default: the same)", GW_OPTION_TEXT},
    {0},
};

const struct gw_command gw_commands[] = {
    {"vm", "start", "FILE", "Start the VM that a YAML file describes",
     "FILE is a VM file as godwit-vm(5) describes it; '-' reads it from standard input.",
     "godwit vm start web1.yaml", NULL, gw_cmd_vm_start},
    {"vm", "stop", "NAME", "Stop a VM", NULL, "godwit vm stop web1", stop_options, gw_cmd_vm_stop},
    {"vm", "resume", "NAME", "Let a paused VM run again",
     "Not for one that a migration left behind without knowing who runs it: for that there is\n"
     "'godwit resolve'.",
     "godwit vm resume web1", NULL, gw_cmd_vm_resume},
    {"vm", "list", NULL, "List the VMs of this node", NULL, "godwit vm list", NULL, gw_cmd_vm_list},
    {"vm", "show", "NAME", "Show one VM", NULL, "godwit vm show web1", NULL, gw_cmd_vm_show},
    {"vm", "adopt", NULL, "Take over a QEMU that somebody else started",
     "godwitd reads the command line of the process and rewrites it for the destination of a\n"
     "later move. What cannot be carried over is named, and the VM is not adopted.",
     "godwit vm adopt --qmp /run/vm/web1.qmp --pid 4711 --name web1", adopt_options,
     gw_cmd_vm_adopt},
    {NULL, "check", "VM", "Tell what would stop a VM from moving to a node",
     "Changes nothing. Exit status 0 if it can move, 1 if it cannot.", "godwit check web1 --to n2",
     check_options, gw_cmd_check},
    {NULL, "migrate", "VM", "Move a running VM to another node",
     "Waits until the move is over. Ctrl-C cancels it and waits until the guest runs here\n"
     "again; a second Ctrl-C leaves without waiting. With --json the result is one object on\n"
     "standard output. Exit status: 0 the guest runs on the destination; 1 it failed and the\n"
     "guest runs on the source; 2 wrong usage, or no such VM, node or policy; 3 somebody has\n"
     "to look, and is told where.",
     "godwit migrate web1 --to n2 --bandwidth 1gbit --blackout 200", migrate_options,
     gw_cmd_migrate},
    {"migration", "set", "ID", "Change what a migration may send while it is on its way",
     "Possible until the switchover, on the node that the guest comes from.",
     "godwit migration set m-1a2b3c4d --bandwidth 500mbit", migration_set_options,
     gw_cmd_migration_set},
    {NULL, "status", NULL, "Show this node and its migrations", NULL, "godwit status", NULL,
     gw_cmd_status},
    {NULL, "watch", NULL, "Follow what happens until interrupted",
     "On a terminal a table that is redrawn; with --json one line of JSON for every event.",
     "godwit watch", NULL, gw_cmd_watch},
    {NULL, "cancel", "ID", "Cancel a migration; the guest stays on the source",
     "Possible until the move is committed; after that the answer is an error.",
     "godwit cancel m-1a2b3c4d", NULL, gw_cmd_cancel},
    {NULL, "log", "ID", "Print what was logged about a migration", NULL, "godwit log m-1a2b3c4d",
     NULL, gw_cmd_log},
    {NULL, "explain", "ID", "Print every decision of a migration, with its reason", NULL,
     "godwit explain m-1a2b3c4d", NULL, gw_cmd_explain},
    {NULL, "resolve", "VM", "Show who may run a guest, and settle what a migration left open",
     "Reads the owner record, looks at this node's QEMU and asks the other node. Without an\n"
     "action it only shows what is known and which actions are safe; an unsafe one is refused.\n"
     "VM is a name of this node's, or the uuid of a guest that is on no node any more.",
     "godwit resolve web1", resolve_options, gw_cmd_resolve},
    {"node", "init", NULL, "Make this node the first of a group, with a certificate authority",
     NULL, "godwit node init --name n1 --address 10.0.0.1", identity_options, gw_cmd_node_init},
    {"node", "invite", NULL, "Print a token with which one node may join",
     "The token stands alone on standard output. It is good once, and not for long.",
     "godwit node invite --ttl 15m", invite_options, gw_cmd_node_invite},
    {"node", "join", "TOKEN", "Join the group that a token comes from",
     "'-' reads the token from standard input: words of a command line show in ps(1).",
     "godwit node join TOKEN --name n2 --address 10.0.0.2", identity_options, gw_cmd_node_join},
    {"node", "list", NULL, "List the nodes that this one knows", NULL, "godwit node list", NULL,
     gw_cmd_node_list},
    {NULL, "version", NULL, "Print the versions of this program and of godwitd", NULL,
     "godwit version", NULL, gw_cmd_version},
    {NULL},
};
