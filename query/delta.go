package query

// delta is a change of one row: weight 1 adds it, -1 takes one like it away.
type delta[K, V any] struct {
	key    K
	val    V
	raw    []byte // the key's bytes, where they are known; they belong to the batch
	time   moment // of the record that caused it
	weight int64
	null   bool // the record has no key
	// tombstone says that the record has no value. Only sources have those.
	tombstone bool
}

// port is where an operator's deltas go: to those that were connected, in turns. A batch is valid during the call.
type port[K, V any] struct {
	outs []func([]delta[K, V])
}

func (p *port[K, V]) to(f func([]delta[K, V])) { p.outs = append(p.outs, f) }

func (p *port[K, V]) emit(ds []delta[K, V]) {
	if len(ds) == 0 {
		return
	}
	for _, f := range p.outs {
		f(ds)
	}
}

// keyer finds the bytes of a delta's key. They are what rows are kept by, so that one key must have one encoding: what a
// record has is taken as it is only from codecs of which that is known.
type keyer[K any] struct {
	codec Codec[K]
	buf   []byte
	err   error // the first key that could not be encoded
}

func keyOf[K, V any](k *keyer[K], d *delta[K, V]) []byte {
	if d.raw != nil {
		return d.raw
	}
	b, err := k.codec.Append(k.buf[:0], d.key)
	if err != nil && k.err == nil {
		k.err = err
	}
	k.buf = b
	return b
}
