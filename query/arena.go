package query

// arena is bytes one after another: the keys and values of many records that are written together take few allocations.
// Nobody writes to what it gave out; a block goes when none of its parts is held any more.
type arena struct{ block []byte }

const (
	arenaBlock = 64 << 10
	arenaRoom  = 256 // at least so much is offered to be appended to
)

// room is an empty slice to append to. It is given to took afterwards, or forgotten.
func (a *arena) room() []byte {
	if cap(a.block)-len(a.block) < arenaRoom {
		a.block = make([]byte, 0, arenaBlock)
	}
	return a.block[len(a.block):]
}

// took is what was appended to room. When it was more than there was room for, it is in memory of its own.
func (a *arena) took(b []byte) []byte {
	if len(b) <= cap(a.block)-len(a.block) {
		a.block = a.block[:len(a.block)+len(b)]
	}
	return b[:len(b):len(b)]
}

func (a *arena) copy(b []byte) []byte { return a.took(append(a.room(), b...)) }
