-- Appends records to the ledger, each id once, and trims it.
--
-- KEYS[1]  the stream
-- KEYS[2]  the sorted set of the ids in it, scored by the milliseconds of their entries
-- ARGV[1]  oldest age kept, in milliseconds
-- ARGV[2]  most records kept
-- ARGV[3]  number of fields of a record, n
-- ARGV[4]  to ARGV[3 + n]: their names, `id` first; then n values for each record
-- Returns how many records were new.

local stream, ids = KEYS[1], KEYS[2]
local fields = tonumber(ARGV[3])
local added = 0

for first = 4 + fields, #ARGV, fields do
  local id = ARGV[first]
  if not redis.call('ZSCORE', ids, id) then
    local entry = {}
    for offset = 0, fields - 1 do
      entry[2 * offset + 1] = ARGV[4 + offset]
      entry[2 * offset + 2] = ARGV[first + offset]
    end
    local key = redis.call('XADD', stream, '*', unpack(entry))
    -- The entry's own time, which never goes back, even where the clock does.
    redis.call('ZADD', ids, string.match(key, '^%d+'), id)
    added = added + 1
  end
end

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
-- In whole nodes of the stream, which is what costs nothing: a few more than asked for are kept.
redis.call('XTRIM', stream, 'MINID', '~', string.format('%.0f', math.max(now_ms - ARGV[1], 0)))
redis.call('XTRIM', stream, 'MAXLEN', '~', ARGV[2])

-- An id is known for as long as its record is there.
local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)
if oldest[1] then
  redis.call('ZREMRANGEBYSCORE', ids, '-inf', '(' .. string.match(oldest[1][1], '^%d+'))
else
  redis.call('DEL', ids)
end
return added
