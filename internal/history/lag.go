package history

import (
	"cmp"
	"slices"
	"sort"
	"time"
)

// step says that at a time an offset was known to exist in a key.
type step struct {
	time, offset int64
}

// shorten sorts steps by time and leaves those that raise the highest offset.
func shorten(steps []step) []step {
	slices.SortFunc(steps, func(a, b step) int { return cmp.Compare(a.time, b.time) })
	kept := steps[:0]
	for _, s := range steps {
		if n := len(kept); n == 0 || s.offset > kept[n-1].offset {
			kept = append(kept, s)
		}
	}
	return slices.Clip(kept)
}

// behind returns for how long, at a time, somebody who is to read next at an offset
// has been behind the end of the key: since it was known that there is such a record.
func (k *keyState) behind(next, now int64) time.Duration {
	i := sort.Search(len(k.lag), func(i int) bool { return k.lag[i].offset >= next })
	if i == len(k.lag) || k.lag[i].time >= now {
		return 0
	}
	return time.Duration(now - k.lag[i].time)
}
