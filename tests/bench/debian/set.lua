-- SPDX-License-Identifier: Apache-2.0
-- A client has come back: the record of user ARGV[1] is set anew, with another count, time and session,
-- and the checksum over all of it (see cache.py). Returns the number of such writes.
local key = 'user:' .. tonumber(ARGV[1])
local n = redis.call('INCR', 'writes')
local body = string.sub(redis.call('GET', key), 1, -51)

body = string.gsub(body, '"visits": %d+', string.format('"visits": %09d', n), 1)
body = string.gsub(body, '"seen": %d+', '"seen": ' .. redis.call('TIME')[1], 1)
body = string.gsub(body, '"session": "%x+', '"session": "' .. redis.sha1hex(body), 1)
redis.call('SET', key, body .. '"sum": "' .. redis.sha1hex(body) .. '"}')
return n
