-- The entries whose questions are nearest to one, and what has been learned around it. Those of entries that are gone go.
--
-- KEYS  the tenant's prefix
-- ARGV  identity, vector (FP32), how many, least score, least score of what was learned
-- gives {{entry, score, sealed question}...}, the highest threshold learned nearby or '0', the lessons it is from

local prefix, identity, vector = KEYS[1], ARGV[1], ARGV[2]
local set, lessons = prefix .. 'v:' .. identity, prefix .. 'w:' .. identity

local near = {}
local found = redis.call('VSIM', set, 'FP32', vector, 'WITHSCORES', 'COUNT', ARGV[3])
for at = 1, #found, 2 do
  local entry, score = found[at], found[at + 1]
  if tonumber(score) < tonumber(ARGV[4]) then break end
  local question = redis.call('GET', prefix .. 'q:' .. entry)
  if question and redis.call('EXISTS', prefix .. 'e:' .. entry) == 1 then
    near[#near + 1] = {entry, score, question}
  else
    forget(prefix, entry)
    redis.call('VREM', set, entry)
  end
end

local threshold, taught = 0, {}
if #near > 0 then
  local learned = redis.call('VSIM', lessons, 'FP32', vector, 'WITHSCORES', 'COUNT', 8)
  for at = 1, #learned, 2 do
    if tonumber(learned[at + 1]) < tonumber(ARGV[5]) then break end
    local own = tonumber(redis.call('HGET', prefix .. 't:' .. identity, learned[at]) or 0)
    if own > 0 then taught[#taught + 1] = learned[at] end
    threshold = math.max(threshold, own)
  end
end
return {near, tostring(threshold), taught}
