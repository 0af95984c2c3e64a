-- Keep an answer in place of the one before it. What has expired goes, and what was used least lately, as far as the
-- tenant's quotas ask for it.
--
-- KEYS  the tenant's prefix
-- ARGV  entry, bytes, ttl_ms, most entries, most bytes
-- gives {1 kept or 0, how many went for it, entries and bytes of the tenant now}

local prefix, entry, ttl_ms = KEYS[1], ARGV[1], tonumber(ARGV[3])
local most_entries, most_bytes = tonumber(ARGV[4]), tonumber(ARGV[5])
local MOST_AT_ONCE = 200
local now = now_ms()
local size = #ARGV[2] + #entry

for _, expired in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'expiry', '-inf', now, 'LIMIT', 0, MOST_AT_ONCE)) do
  forget(prefix, expired)
end
forget(prefix, entry)

local function held()
  return redis.call('ZCARD', prefix .. 'used'), tonumber(redis.call('HGET', prefix .. 'totals', 'bytes') or 0)
end

local function is_full()
  local entries, bytes = held()
  return entries + 1 > most_entries or bytes + size > most_bytes
end

local evicted = 0
while size <= most_bytes and evicted < MOST_AT_ONCE and is_full() do
  local oldest = redis.call('ZRANGE', prefix .. 'used', 0, 0)[1]
  if not oldest then break end
  forget(prefix, oldest)
  evicted = evicted + 1
end
if size > most_bytes or is_full() then return {0, evicted, held()} end

redis.call('SET', prefix .. 'e:' .. entry, string.format('%.0f:', now) .. ARGV[2], 'PX', ttl_ms)
redis.call('ZADD', prefix .. 'used', redis.call('HINCRBY', prefix .. 'totals', 'uses', 1), entry)
redis.call('ZADD', prefix .. 'expiry', now + ttl_ms, entry)
redis.call('HSET', prefix .. 'sizes', entry, size)
redis.call('HINCRBY', prefix .. 'totals', 'bytes', size)
-- What is counted lives as long as the last thing counted.
for _, counted in ipairs({'used', 'expiry', 'sizes', 'totals'}) do
  redis.call('PEXPIRE', prefix .. counted, ttl_ms, 'NX')
  redis.call('PEXPIRE', prefix .. counted, ttl_ms, 'GT')
end
return {1, evicted, held()}
