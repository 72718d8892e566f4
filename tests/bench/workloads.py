#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Programs that use their memory as real ones do, for dump_pair.py. They run until they are ended.

    workloads.py objects    CPython objects that come and go
    workloads.py cache      a dictionary of JSON values that are replaced one by one
    workloads.py database   SQLite in memory: accounts, transfers and a history of them
"""
import json
import random
import sqlite3
import sys

WORDS = ('amber basin cedar delta ember fjord grove heath islet jetty knoll ledge marsh notch orchard '
         'plain quarry ridge shoal tundra upland vale wharf').split()


def text(dice, n_words):
    return ' '.join(dice.choice(WORDS) for _ in range(n_words))


def value(dice, number):
    return json.dumps({'id': number, 'name': text(dice, 3), 'mail': f'{dice.choice(WORDS)}@example.org',
                       'score': dice.random(), 'tags': [dice.choice(WORDS) for _ in range(4)],
                       'note': text(dice, dice.randrange(8, 60))})


def objects(dice):
    kept = [{'number': i, 'words': text(dice, 4).split(), 'at': (i, dice.random())} for i in range(150000)]
    while True:
        i = dice.randrange(len(kept))
        kept[i] = {'number': i, 'words': text(dice, 4).split(), 'at': (i, dice.random())}


def cache(dice):
    kept = {f'user:{i}': value(dice, i).encode() for i in range(150000)}
    while True:
        i = dice.randrange(len(kept))
        kept[f'user:{i}'] = value(dice, i).encode()


def database(dice):
    base = sqlite3.connect(':memory:', isolation_level=None)
    base.execute('CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER, filler TEXT)')
    base.execute('CREATE TABLE history (source INTEGER, target INTEGER, amount INTEGER, note TEXT)')
    base.execute('BEGIN')
    for i in range(200000):
        base.execute('INSERT INTO account VALUES (?, ?, ?)', (i, 1000, text(dice, 40)))
    base.execute('COMMIT')
    while True:
        source, target, amount = dice.randrange(200000), dice.randrange(200000), dice.randrange(100)
        base.execute('BEGIN')
        base.execute('UPDATE account SET balance = balance - ? WHERE id = ?', (amount, source))
        base.execute('UPDATE account SET balance = balance + ?, filler = ? WHERE id = ?',
                     (amount, text(dice, 40), target))
        base.execute('INSERT INTO history VALUES (?, ?, ?, ?)', (source, target, amount, text(dice, 8)))
        base.execute('COMMIT')


if __name__ == '__main__':
    {'objects': objects, 'cache': cache, 'database': database}[sys.argv[1]](random.Random(1))
