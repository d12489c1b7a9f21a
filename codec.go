package embedlog

// Codec turns values of a type into the bytes of a key or a value, and back.
// Package codec has those for strings, bytes, numbers and JSON.
//
// One codec is used by several goroutines at once.
type Codec[T any] interface {
	// Append encodes v behind dst and returns the longer slice, which may be nil only
	// for a value that is null.
	Append(dst []byte, v T) ([]byte, error)
	// Decode reads what Append wrote. The result may be a part of b, which nobody
	// writes to any more.
	Decode(b []byte) (T, error)
}
