#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Holds the #includes to the layers: util < core < flow, qmp, host < shell < tools.
Beside them codec, storage and the transports, which see util only; flow reaches codecs through
godwit/codec.h.

Usage: check_layers.py [REPOSITORY]. Prints each violation as FILE:LINE: text; exits 1 if any.
"""
import os
import re
import sys

# What a layer may include, besides the public headers (godwit/) and its own.
MAY_USE = {
    'include': set(),
    'util': set(),
    'core': {'util'},
    'qmp': {'util', 'core'},
    'codec': {'util'},
    'storage': {'util'},
    'host': {'util', 'core'},
    'flow': {'util', 'core'},
    'shell': {'util', 'core', 'qmp', 'codec', 'storage', 'host', 'flow'},
    'transports': {'util'},
}
# System headers that a layer must not know.
LOOP = r'event2/|event\.h|evhttp|openssl/|sqlite3|curl/|systemd/'
MUST_NOT = {
    'core': LOOP + r'|jansson|cyaml|time\.h|sys/time|sys/socket|sys/stat|netinet/|arpa/|poll\.h'
                   r'|sys/epoll|fcntl\.h|unistd\.h|pthread|threads\.h|stdio\.h',
    'qmp': LOOP + r'|cyaml|sys/socket|netinet/|arpa/|poll\.h|sys/epoll|pthread',
    'host': LOOP,
    'flow': LOOP + r'|jansson|cyaml|netinet/|arpa/|sys/epoll',
    'codec': LOOP + r'|jansson|cyaml|sys/socket',
    'storage': LOOP + r'|jansson|cyaml|sys/socket|netinet/|arpa/|poll\.h|pthread',
    'transports': r'event2/|event\.h|evhttp|sqlite3|curl/|systemd/|jansson|cyaml',
    'include': LOOP + r'|jansson|cyaml',
}
INCLUDE = re.compile(r'\s*#\s*include\s*([<"])([^>"]+)[>"]')


def violation(layer, quote, header):
    """Why this layer must not include that header, or None."""
    if quote == '<':
        pattern = MUST_NOT.get(layer)
        return f'{layer} must not know <{header}>' if pattern and re.match(pattern, header) \
            else None
    used = header.split('/')[0]
    if header == 'build_config.h' or used in ('godwit', layer):
        return None
    if '/' not in header:
        return f'write includes from the engine directory, not "{header}"'
    if used not in MAY_USE[layer]:
        allowed = ', '.join(sorted(MAY_USE[layer] | {layer})) or 'nothing'
        return f'{layer} includes "{header}", but may use only {allowed}'
    return None


def violations(repository):
    engine = os.path.join(repository, 'engine')
    transports = os.path.join(repository, 'transports')
    for place, _, names in sorted([*os.walk(engine), *os.walk(transports)]):
        layer = os.path.relpath(place, repository).removeprefix('engine/').split('/')[0]
        for name in sorted(names):
            if not name.endswith(('.c', '.h')):
                continue
            path = os.path.join(place, name)
            if layer not in MAY_USE:
                yield f'{path}:1: the directory engine/{layer} has no place in the layers'
                continue
            with open(path, encoding='utf-8') as source:
                for number, line in enumerate(source, 1):
                    found = INCLUDE.match(line)
                    why = found and violation(layer, *found.groups())
                    if why:
                        yield f'{path}:{number}: {why}'


def main():
    repository = sys.argv[1] if len(sys.argv) > 1 else '.'
    found = list(violations(repository))
    print('\n'.join(found) if found else 'layers: every #include points downwards')
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main())
