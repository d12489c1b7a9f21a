package history

import "fmt"

// judgeWrites finds what was written and is not there: records that nobody saw, and
// transactions of which a part is missing.
func (c *checker) judgeWrites() {
	for i := range c.keys {
		k := &c.keys[i]
		for row := range k.values.value {
			c.judgeWrite(k, uint32(row))
		}
	}
	torn := map[uint32]*Instance{}
	for op := range c.ops {
		if o := &c.ops[op]; o.lost > 0 && o.kept > 0 {
			in := c.add(TornTxn)
			if in == nil {
				continue
			}
			in.Ops = c.refs(uint32(op))
			in.Detail = fmt.Sprintf("%d records of a transaction were seen, %d are lost", o.kept, o.lost)
			torn[uint32(op)] = in
		}
	}
	if len(torn) == 0 {
		return
	}
	// The lost values are looked for once more, for those few that are reported.
	for i := range c.keys {
		k := &c.keys[i]
		for row, op := range k.values.op {
			if in := torn[op]; in != nil && c.lost(k, uint32(row)) && len(in.Values) < c.instances {
				in.Key, in.Values = k.values.key, append(in.Values, k.values.value[row])
			}
		}
	}
}

// lost says that a visible record is not where it has to be.
func (c *checker) lost(k *keyState, row uint32) bool {
	v := &k.values
	if !c.visible(v, row) {
		return false
	}
	if k.final {
		return v.flags[row]&seenFinal == 0
	}
	return v.flags[row]&(seenCommitted|seenUncommitted) == 0 && v.sent[row] >= 0 && v.sent[row] <= k.read
}

func (c *checker) judgeWrite(k *keyState, row uint32) {
	v := &k.values
	lost := c.lost(k, row)
	if op := v.op[row]; op != none && c.ops[op].kind == OpTxn {
		switch {
		case lost:
			c.ops[op].lost++
		case v.flags[row]&seenCommitted != 0:
			c.ops[op].kept++
		}
	}
	unseen := v.flags[row]&(seenCommitted|seenUncommitted) == 0
	switch {
	case lost:
		if in := c.add(LostWrite); in != nil {
			in.Key, in.Values, in.Ops = v.key, []int64{v.value[row]}, c.refs(v.op[row])
			if at := c.first(v, row); at >= 0 {
				in.Offsets = []int64{at}
			}
			switch {
			case !k.final:
				in.Detail = fmt.Sprintf("nobody saw a record that was written, though offset %d was read", k.read)
			case unseen:
				in.Detail = "nobody saw a record that was written, not even the final read"
			default:
				in.Detail = "the final read did not see a record that had been seen before"
			}
		}
	case unseen && c.visible(v, row):
		if in := c.add(Unseen); in != nil {
			in.Key, in.Values, in.Ops = v.key, []int64{v.value[row]}, c.refs(v.op[row])
			if v.sent[row] >= 0 {
				in.Offsets = []int64{v.sent[row]}
			}
			in.Detail = fmt.Sprintf("nobody saw a record that was written; the highest offset that was read is %d", k.read)
		}
	}
}
