#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds docs/openapi.yaml and the daemon's routes together.

    check_openapi.py docs/openapi.yaml build/tools/godwitd   runs `godwitd --print-routes`
    check_openapi.py docs/openapi.yaml -                     reads "METHOD /path" lines from stdin
    check_openapi.py docs/openapi.yaml                       checks the file in itself

Exit status: 0 they agree, 1 they do not, 2 usage, 77 (skip) without the YAML module.
"""
import re
import subprocess
import sys

try:
    import yaml
except ImportError:
    print("skipped: python3-yaml is not installed", file=sys.stderr)
    sys.exit(77)

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")


def documented(api):
    """{(method, path)} of the file."""
    return {(method.upper(), path)
            for path, item in api["paths"].items() for method in item if method in METHODS}


def served(lines):
    """{(method, path)} of a dump; a line of another form is an error."""
    routes = set()
    for line in filter(None, map(str.strip, lines)):
        match = re.fullmatch(r"([A-Z]+) (/\S*)", line)
        if not match:
            raise ValueError(f"not a route: {line!r}")
        routes.add(match.groups())
    return routes


def references(node):
    """Every $ref below a node."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def resolve(api, ref):
    node = api
    for step in ref.removeprefix("#/").split("/"):
        node = node[step]
    return node


def dangling(api):
    """References that lead nowhere."""
    for ref in sorted(set(references(api))):
        try:
            resolve(api, ref)
        except KeyError:
            yield f"{ref} is referred to and not there"


def parameter_faults(api):
    """Path parameters in the path without a declaration, or the other way round."""
    for path, item in api["paths"].items():
        for method in (m for m in item if m in METHODS):
            declared = {(p if "name" in p else resolve(api, p["$ref"]))["name"]
                        for p in item.get("parameters", []) + item[method].get("parameters", [])
                        if (p if "in" in p else resolve(api, p["$ref"]))["in"] == "path"}
            wanted = set(re.findall(r"{(\w+)}", path))
            if declared != wanted:
                yield (f"{method.upper()} {path}: parameters {sorted(wanted)} in the path, "
                       f"{sorted(declared)} declared")


def operation_faults(api):
    seen = {}
    for path, item in api["paths"].items():
        for method in (m for m in item if m in METHODS):
            name = f"{method.upper()} {path}"
            operation = item[method]
            identity = operation.get("operationId")
            if not identity:
                yield f"{name}: no operationId"
            elif identity in seen:
                yield f"{name}: operationId {identity} is that of {seen[identity]}"
            seen[identity] = name
            if not operation.get("responses"):
                yield f"{name}: no responses"


def differences(api, routes):
    """Parameters' names count: they are part of the daemon's patterns and of the file's paths."""
    in_file = documented(api)
    for method, path in sorted(routes - in_file):
        yield f"{method} {path} is served and not in the file"
    for method, path in sorted(in_file - routes):
        yield f"{method} {path} is in the file and not served"


def dump(source):
    if source == "-":
        return sys.stdin.read().splitlines()
    done = subprocess.run([source, "--print-routes"], check=True, capture_output=True, text=True,
                          timeout=30)
    return done.stdout.splitlines()


def main(arguments):
    if len(arguments) not in (1, 2):
        print(__doc__, file=sys.stderr)
        return 2
    with open(arguments[0], encoding="utf-8") as file:
        api = yaml.safe_load(file)
    faults = [*dangling(api)]
    if not faults:
        faults = [*parameter_faults(api), *operation_faults(api)]
    if len(arguments) == 2:
        faults += differences(api, served(dump(arguments[1])))
    for fault in faults:
        print(f"{arguments[0]}: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
