/* SPDX-License-Identifier: Apache-2.0 */
/* gw_hold_settle(): a guest that came back by the destination's word, and its record follows. With
 * a real directory of records and a real journal; nothing runs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "shell/daemon.h"
#include "shell/hold.h"
#include "storage/file.h"
#include "util/cleanup.h"
#include "util/tree.h"

#define UUID "11111111-2222-3333-4444-555555555555"

static char dir[] = "/tmp/godwit-hold-XXXXXX";
static struct gw_daemon daemon_;
static struct gw_vm_spec *spec;
static struct gw_vm vm;

struct waiting {
    struct gw_owner_call call;
    struct gw_owner current;
    int result;
};

static void told(struct gw_owner_call *call, int result, const struct gw_owner *current,
                 const struct gw_error *error)
{
    struct waiting *w = gw_container_of(call, struct waiting, call);

    (void)error;
    w->result = result;
    w->current = *current;
    event_base_loopbreak(daemon_.base);
}

static struct gw_owner record(const char *node, uint64_t epoch)
{
    struct gw_owner owner = {.epoch = epoch, .may_have_run = true};

    snprintf(owner.node, sizeof owner.node, "%s", node);
    return owner;
}

static void create(const char *node, uint64_t epoch)
{
    struct waiting w = {.call.done = told};
    struct gw_owner owner = record(node, epoch);

    gw_owners_create(daemon_.owners, spec, &w.call, &owner);
    event_base_dispatch(daemon_.base);
    assert_int_equal(w.result, 0);
}

static struct gw_owner now(void)
{
    struct waiting w = {.call.done = told};

    gw_owners_read(daemon_.owners, spec, &w.call);
    event_base_dispatch(daemon_.base);
    assert_int_equal(w.result, 0);
    return w.current;
}

static void settle(const char *node, uint64_t epoch)
{
    struct gw_owner theirs = record(node, epoch);

    gw_hold_settle(&vm, &theirs);
    assert_non_null(vm.settling);
    assert_true(gw_hold_is_void(&vm, &theirs));
    while (vm.settling)
        event_base_loop(daemon_.base, EVLOOP_ONCE);
}

static int set_up(void **state)
{
    gw_autofree char *journal = NULL;
    struct gw_error error = {.msg = ""};
    struct gw_store *store;

    (void)state;
    strcpy(dir + sizeof dir - 7, "XXXXXX");
    assert_non_null(mkdtemp(dir));
    assert_true(asprintf(&journal, "%s/journal.db", dir) > 0);
    memset(&daemon_, 0, sizeof daemon_);
    memset(&vm, 0, sizeof vm);
    daemon_.base = event_base_new();
    assert_int_equal(gw_journal_open(journal, NULL, &daemon_.journal, &error), 0);
    assert_int_equal(gw_nodes_open(dir, "n1", &daemon_.nodes, &error), 0);
    assert_int_equal(gw_store_file_open(dir, NULL, &store, &error), 0);
    assert_int_equal(gw_owners_new(daemon_.base, store, NULL, &daemon_.owners, &error), 0);
    spec = calloc(1, sizeof *spec);
    assert_non_null(spec);
    spec->name = strdup("web1");
    spec->uuid = strdup(UUID);
    vm.daemon = &daemon_;
    vm.spec = spec;
    vm.qmp_path = (char *)"";
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    gw_hold_settle_cancel(&vm);
    gw_owners_free(daemon_.owners);
    gw_nodes_free(daemon_.nodes);
    gw_journal_close(daemon_.journal);
    gw_vm_spec_free(spec);
    event_base_free(daemon_.base);
    return gw_remove_tree(dir);
}

/* The destination's swap had happened: it is swapped back. */
static void a_void_record_is_swapped_back(void **state)
{
    struct gw_owner current;

    (void)state;
    create("n2", 8);
    settle("n2", 8);
    current = now();
    assert_string_equal(current.node, "n1");
    assert_int_equal(current.epoch, 9);
    assert_int_equal(vm.owner.epoch, 9);
    assert_int_equal(vm.void_owner.epoch, 0);
}

/* It had not, and may still be on its way: the epoch that it follows from is used up. */
static void a_late_swap_finds_its_epoch_gone(void **state)
{
    struct waiting late = {.call.done = told};
    struct gw_owner from = record("n1", 7), to = record("n2", 0);

    (void)state;
    create("n1", 7);
    settle("n2", 8);
    gw_owners_swap(daemon_.owners, spec, &late.call, &from, &to);
    event_base_dispatch(daemon_.base);
    assert_int_equal(late.result, GW_OWNER_CONFLICT);
    assert_string_equal(now().node, "n1");
    assert_int_equal(now().epoch, 8);
}

/* Nobody promised anything about this one: it stays, and it gives up. */
static void anothers_record_stays(void **state)
{
    (void)state;
    create("n3", 8);
    settle("n2", 8);
    assert_string_equal(now().node, "n3");
    assert_int_equal(now().epoch, 8);
    assert_int_equal(vm.owner.epoch, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_void_record_is_swapped_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_late_swap_finds_its_epoch_gone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(anothers_record_stays, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
