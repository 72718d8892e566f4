/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "shell/routing.h"

#define NOW (GW_ROUTING_KEEP_NS * 10)

static void a_link_is_known_for_a_while(void **state)
{
    struct gw_routing r = {0};
    uint64_t rate = 7;
    char name[8];

    (void)state;
    assert_false(gw_routing_link(&r, "n2", NOW, &rate));
    gw_routing_learn(&r, "n2", NOW, 100);
    gw_routing_learn(&r, "n3", NOW, 200);
    assert_true(gw_routing_link(&r, "n2", NOW + GW_ROUTING_KEEP_NS, &rate));
    assert_int_equal(rate, 100);
    assert_false(gw_routing_link(&r, "n2", NOW + GW_ROUTING_KEEP_NS + 1, &rate));
    gw_routing_learn(&r, "n2", NOW + 1, 300);
    assert_true(gw_routing_link(&r, "n2", NOW + 1, &rate));
    assert_int_equal(rate, 300);
    for (unsigned i = 0; i < 3 * GW_ROUTING_PEERS; i++) {
        snprintf(name, sizeof name, "m%u", i);
        gw_routing_learn(&r, name, NOW, i);
    }
    assert_true(gw_routing_link(&r, name, NOW, &rate));
    assert_int_equal(rate, 3 * GW_ROUTING_PEERS - 1);
    assert_false(gw_routing_link(&r, "n2", NOW, &rate));
}

static void the_codec_is_measured_once(void **state)
{
    struct gw_routing r = {0};
    uint64_t rate = gw_routing_codec(&r);

    (void)state;
    assert_in_range(rate, 1000000, UINT64_C(100000000000));
    assert_int_equal(gw_routing_codec(&r), rate);
}

static void facts_are_heard(void **state)
{
    static const struct {
        const char *facts;
        bool carrier;
    } cases[] = {
        {"{\"capabilities\": [\"events\", \"multifd\"]}", true},
        {"{\"capabilities\": [\"events\", 7]}", false},
        {"{}", false},
    };
    /* a limit is as good as a link that was measured */
    const struct gw_native_wishes wishes = {.bandwidth_bytes_per_s = 1000000};

    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct gw_routing r = {.codec_bytes_per_s = 400000000};
        json_t *facts = json_loads(cases[i].facts, 0, NULL), *inputs;
        const char *because = NULL;

        assert_non_null(facts);
        assert_int_equal(gw_routing_choose(&r, "n2", facts, &wishes, &inputs, &because),
                         cases[i].carrier);
        assert_string_equal(json_string_value(json_object_get(inputs, "wanted")), "auto");
        assert_true(json_integer_value(json_object_get(inputs, "processors")) > 0);
        assert_non_null(because);
        json_decref(inputs);
        json_decref(facts);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_link_is_known_for_a_while),
        cmocka_unit_test(the_codec_is_measured_once),
        cmocka_unit_test(facts_are_heard),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
