/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster.h"

#include "shell/nodes.h"

static int set_up(void **state)
{
    *state = temp_dir();
    return 0;
}

static int tear_down(void **state)
{
    remove_dir(*state);
    return 0;
}

static struct gw_nodes *open_book(const char *dir, const char *self)
{
    struct gw_nodes *nodes = NULL;
    struct gw_error e;

    assert_done(gw_nodes_open(dir, self, &nodes, &e), e);
    return nodes;
}

static struct gw_node node(const char *name, const char *address, int64_t added_at_ms)
{
    struct gw_node n = {.port = 7400, .added_at_ms = added_at_ms};

    snprintf(n.name, sizeof n.name, "%s", name);
    snprintf(n.address, sizeof n.address, "%s", address);
    return n;
}

static void put(struct gw_nodes *nodes, const char *name, const char *address, int64_t at)
{
    struct gw_node n = node(name, address, at);
    struct gw_error e;

    assert_done(gw_nodes_put(nodes, &n, &e), e);
}

static void names_and_addresses(void **state)
{
    char longest[GW_NODE_ADDRESS_MAX + 2], buf[64];

    (void)state;
    assert_true(gw_node_name_valid("n1"));
    assert_true(gw_node_name_valid("Rack-3_a.b"));
    assert_false(gw_node_name_valid(""));
    assert_false(gw_node_name_valid(NULL));
    assert_false(gw_node_name_valid("-n1"));
    assert_false(gw_node_name_valid("../etc"));
    assert_false(gw_node_name_valid("n 1"));
    assert_false(gw_node_name_valid("n1\n"));
    memset(longest, 'a', sizeof longest);
    longest[63] = '\0';
    assert_true(gw_node_name_valid(longest));
    longest[63] = 'a';
    longest[64] = '\0';
    assert_false(gw_node_name_valid(longest));

    assert_true(gw_node_address_valid("10.0.0.1"));
    assert_true(gw_node_address_valid("fd00::1"));
    assert_true(gw_node_address_valid("n1"));
    assert_true(gw_node_address_valid("a-b.example.org"));
    assert_false(gw_node_address_valid(""));
    assert_false(gw_node_address_valid("10.0.0.256"));
    assert_false(gw_node_address_valid("10.0.0.1:7400"));
    assert_false(gw_node_address_valid("a..b"));
    assert_false(gw_node_address_valid(".a"));
    assert_false(gw_node_address_valid("a."));
    assert_false(gw_node_address_valid("a-.b"));
    assert_false(gw_node_address_valid("-a"));
    assert_false(gw_node_address_valid("a;rm"));
    for (size_t i = 0; i < sizeof longest; i++)
        longest[i] = i % 60 == 59 ? '.' : 'a';
    longest[GW_NODE_ADDRESS_MAX] = '\0';
    assert_true(gw_node_address_valid(longest));
    longest[GW_NODE_ADDRESS_MAX] = 'a';
    longest[GW_NODE_ADDRESS_MAX + 1] = '\0';
    assert_false(gw_node_address_valid(longest));

    assert_string_equal(gw_node_format_address(buf, sizeof buf, "10.0.0.1", 7), "10.0.0.1:7");
    assert_string_equal(gw_node_format_address(buf, sizeof buf, "fd00::1", 7), "[fd00::1]:7");
}

static void the_book_survives_a_restart(void **state)
{
    struct gw_nodes *nodes = open_book(*state, "n1");
    struct gw_node full = node("n3", "n3.example.org", 3);
    struct gw_error e;

    put(nodes, "n2", "10.0.0.2", 2);
    put(nodes, "n1", "10.0.0.1", 1);
    full.ca = true;
    strcpy(full.migration_address, "fd00::3");
    assert_done(gw_nodes_put(nodes, &full, &e), e);
    gw_nodes_free(nodes);
    nodes = open_book(*state, "n1");
    assert_int_equal(gw_nodes_count(nodes), 3);
    assert_string_equal(gw_nodes_at(nodes, 0)->name, "n1");
    assert_string_equal(gw_nodes_at(nodes, 1)->name, "n2");
    assert_memory_equal(gw_nodes_at(nodes, 2), &full, sizeof full);
    assert_null(gw_nodes_at(nodes, 3));
    put(nodes, "n2", "10.0.0.22", 0); /* replaced, also by an older one: we say so ourselves */
    assert_int_equal(gw_nodes_count(nodes), 3);
    assert_string_equal(gw_nodes_find(nodes, "n2")->address, "10.0.0.22");
    assert_done(gw_nodes_remove(nodes, "n2", &e), e);
    assert_null(gw_nodes_find(nodes, "n2"));
    assert_int_equal(gw_nodes_remove(nodes, "n2", &e), -1);
    assert_int_equal(e.code, GW_E_NOT_FOUND);
    gw_nodes_free(nodes);
    nodes = open_book(*state, NULL);
    assert_int_equal(gw_nodes_count(nodes), 2);
    gw_nodes_free(nodes);
}

static void of_two_entries_the_newer_is_believed(void **state)
{
    struct gw_nodes *nodes = open_book(*state, "n1");
    struct gw_error e;
    json_t *theirs =
        json_pack("[{ss,ss,si,sI}, {ss,ss,si,sI}, {ss,ss,si,sI}, {ss,ss,si,sI,ss}]", "name", "n1",
                  "address", "10.6.6.6", "port", 1, "added_at", (json_int_t)1000, "name", "n2",
                  "address", "10.0.0.22", "port", 1, "added_at", (json_int_t)6, "name", "n3",
                  "address", "10.0.0.33", "port", 1, "added_at", (json_int_t)4, "name", "n4",
                  "address", "10.0.0.4", "port", 4, "added_at", (json_int_t)1, "from_the_future",
                  "x");

    put(nodes, "n1", "10.0.0.1", 5);
    put(nodes, "n2", "10.0.0.2", 5);
    put(nodes, "n3", "10.0.0.3", 5);
    assert_int_equal(gw_nodes_merge(nodes, theirs, &e), 1);
    assert_int_equal(gw_nodes_merge(nodes, theirs, &e), 0);
    assert_string_equal(gw_nodes_find(nodes, "n1")->address, "10.0.0.1"); /* self */
    assert_string_equal(gw_nodes_find(nodes, "n2")->address, "10.0.0.22");
    assert_string_equal(gw_nodes_find(nodes, "n3")->address, "10.0.0.3");
    assert_string_equal(gw_nodes_find(nodes, "n4")->address, "10.0.0.4");
    json_decref(theirs);
    gw_nodes_free(nodes);
}

static void one_bad_entry_refuses_the_list(void **state)
{
    static const char *const bad[] = {
        "{}",
        "[{\"name\":\"n3\",\"address\":\"10.0.0.3\",\"port\":1}]",
        "[{\"name\":\"../n3\",\"address\":\"10.0.0.3\",\"port\":1,\"added_at\":1}]",
        "[{\"name\":\"n3\",\"address\":\"10.0.0\",\"port\":1,\"added_at\":1}]",
        "[{\"name\":\"n3\",\"address\":\"10.0.0.3\",\"port\":65536,\"added_at\":1}]",
        "[{\"name\":\"n3\",\"address\":\"10.0.0.3\",\"port\":0,\"added_at\":1}]",
        "[{\"name\":\"n3\",\"address\":\"10.0.0.3\",\"port\":-1,\"added_at\":1}]",
        "[{\"name\":\"n3\",\"address\":\"10.0.0.3\",\"port\":1,\"added_at\":-1}]",
        "[{\"name\":\"n3\",\"address\":\"10.0.0.3\",\"port\":1,\"added_at\":9000000000000000}]",
        ("[{\"name\":\"n3\",\"address\":\"10.0.0.3\",\"port\":1,\"added_at\":1,"
         "\"migration_address\":\"$(x)\"}]"),
        "[{\"name\":7,\"address\":\"10.0.0.3\",\"port\":1,\"added_at\":1}]",
    };
    struct gw_nodes *nodes = open_book(*state, "n1");
    struct gw_error e;

    put(nodes, "n1", "10.0.0.1", 1);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        json_t *list = json_loads(bad[i], 0, NULL);

        assert_non_null(list);
        if (json_is_array(list))
            json_array_insert_new(list, 0,
                                  json_pack("{ss,ss,si,si}", "name", "n2", "address", "10.0.0.2",
                                            "port", 1, "added_at", 1));
        assert_int_equal(gw_nodes_merge(nodes, list, &e), -1);
        assert_int_equal(e.code, GW_E_PROTOCOL);
        assert_int_equal(gw_nodes_count(nodes), 1);
        json_decref(list);
    }
    gw_nodes_free(nodes);
}

static void the_book_is_bounded(void **state)
{
    struct gw_nodes *nodes = open_book(*state, "n1");
    json_t *list = json_array();
    struct gw_error e;
    char name[16];

    for (int i = 0; i < GW_NODES_MAX; i++) {
        snprintf(name, sizeof name, "x%d", i);
        json_array_append_new(list, json_pack("{ss,ss,si,si}", "name", name, "address", "10.0.0.2",
                                              "port", 1, "added_at", 1));
    }
    put(nodes, "n1", "10.0.0.1", 1);
    assert_int_equal(gw_nodes_merge(nodes, list, &e), -1);
    assert_int_equal(gw_nodes_count(nodes), 1);
    json_array_remove(list, 0);
    assert_int_equal(gw_nodes_merge(nodes, list, &e), 1);
    assert_int_equal(gw_nodes_count(nodes), GW_NODES_MAX);
    json_decref(list);
    gw_nodes_free(nodes);
    nodes = open_book(*state, "n1");
    assert_int_equal(gw_nodes_count(nodes), GW_NODES_MAX);
    gw_nodes_free(nodes);
}

static void a_broken_file_is_named(void **state)
{
    struct gw_nodes *nodes = NULL;
    struct gw_error e;
    char path[256];
    FILE *f;

    snprintf(path, sizeof path, "%s/nodes.json", (char *)*state);
    f = fopen(path, "w");
    fputs("{\"nodes\": 3", f);
    fclose(f);
    assert_int_equal(gw_nodes_open(*state, "n1", &nodes, &e), -1);
    assert_int_equal(e.code, GW_E_CONFIG);
    assert_contains(e.msg, path);
    assert_int_equal(gw_nodes_open(*state, "n 1", &nodes, &e), -1);
    assert_int_equal(e.code, GW_E_USAGE);
}

static void what_cannot_be_written_is_not_believed(void **state)
{
    struct gw_nodes *nodes = open_book("/nonexistent", "n1");
    struct gw_node n = node("n2", "10.0.0.2", 1);
    struct gw_error e;

    (void)state;
    assert_int_equal(gw_nodes_put(nodes, &n, &e), -1);
    assert_int_equal(e.code, GW_E_SYSTEM);
    assert_int_equal(gw_nodes_count(nodes), 0);
    gw_nodes_free(nodes);
}

#define with_dir(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_addresses),
        with_dir(the_book_survives_a_restart),
        with_dir(of_two_entries_the_newer_is_believed),
        with_dir(one_bad_entry_refuses_the_list),
        with_dir(the_book_is_bounded),
        with_dir(a_broken_file_is_named),
        cmocka_unit_test(what_cannot_be_written_is_not_believed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
