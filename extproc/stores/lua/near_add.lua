-- Make an entry findable by its question. One that is gone already, or has no room, is not.
--
-- KEYS  the tenant's prefix
-- ARGV  entry, identity, vector (FP32), sealed question, most bytes of the tenant
-- gives 1: it is

local prefix, entry, set = KEYS[1], ARGV[1], KEYS[1] .. 'v:' .. ARGV[2]
local PER_VECTOR_BYTES = 700 -- what a vector takes beside its numbers

local ttl_ms = redis.call('PTTL', prefix .. 'e:' .. entry)
if ttl_ms <= 0 then return 0 end
local size = #ARGV[3] + #ARGV[4] + PER_VECTOR_BYTES
local bytes = tonumber(redis.call('HGET', prefix .. 'totals', 'bytes') or 0)
if bytes + size > tonumber(ARGV[5]) then return 0 end

redis.call('VADD', set, 'FP32', ARGV[3], entry, 'NOQUANT')
redis.call('SET', prefix .. 'q:' .. entry, ARGV[4], 'PX', ttl_ms)
redis.call('HSET', prefix .. 'vectors', entry, set)
redis.call('HINCRBY', prefix .. 'sizes', entry, size)
redis.call('HINCRBY', prefix .. 'totals', 'bytes', size)
for _, key in ipairs({set, prefix .. 'vectors'}) do
  redis.call('PEXPIRE', key, ttl_ms, 'NX')
  redis.call('PEXPIRE', key, ttl_ms, 'GT')
end
return 1
