-- Forget answers.
--
-- KEYS  the tenant's prefix
-- ARGV  entries
-- gives how many there were

local gone = 0
for _, entry in ipairs(ARGV) do gone = gone + forget(KEYS[1], entry) end
return gone
