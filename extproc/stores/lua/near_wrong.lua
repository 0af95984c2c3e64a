-- A served answer was wrong: its entry goes, and where its question lay a threshold is learned, above what was wrong and
-- higher for every time. A response counts once.
--
-- KEYS  the tenant's prefix
-- ARGV  response id, by how much a threshold rises, how long it is remembered (ms), radius (least score), most lessons
-- gives 1: it was known

local function call(command, key, numbers, more)
  local arguments = {command, key, 'VALUES', #numbers}
  for _, list in ipairs({numbers, more}) do
    for _, one in ipairs(list) do arguments[#arguments + 1] = one end
  end
  return redis.call(unpack(arguments))
end

local prefix = KEYS[1]
local served = redis.call('HMGET', prefix .. 'r:' .. ARGV[1], 'entry', 'identity', 'score')
local entry, identity, score = served[1], served[2], served[3]
if not entry then return 0 end
redis.call('DEL', prefix .. 'r:' .. ARGV[1])
local step, ttl_ms, radius = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
if identity == '' then forget(prefix, entry) return 1 end

local set, lessons, thresholds = prefix .. 'v:' .. identity, prefix .. 'w:' .. identity, prefix .. 't:' .. identity
local numbers = redis.call('VEMB', set, entry)
if numbers and #numbers > 0 then
  local before, own = 0, ''
  local near = call('VSIM', lessons, numbers, {'WITHSCORES', 'COUNT', 8})
  for at = 1, #near, 2 do
    if tonumber(near[at + 1]) < radius then break end
    before = math.max(before, tonumber(redis.call('HGET', thresholds, near[at]) or 0))
    if own == '' then own = near[at] end
  end
  if own == '' then
    if redis.call('HLEN', thresholds) >= tonumber(ARGV[5]) then
      local other = redis.call('HRANDFIELD', thresholds)
      redis.call('HDEL', thresholds, other)
      redis.call('VREM', lessons, other)
    end
    own = entry
    call('VADD', lessons, numbers, {own, 'NOQUANT'})
  end
  redis.call('HSET', thresholds, own, tostring(math.max(before, tonumber(score)) + step))
  for _, key in ipairs({lessons, thresholds}) do redis.call('PEXPIRE', key, ttl_ms) end
end
forget(prefix, entry)
return 1
