// Package wire encodes Go values that one peer sends to another: requests, answers and
// errors of calls between the nodes of a cluster.
//
// The values are structs as the engine has them. A struct is a list of named fields, each
// with its length:
//
//	struct   count, then for each field that is not zero: name, length, value
//	slice    count, then for each element: length, value      nil is left out, empty is not
//	map      count, then for each entry, by key: length, key, length, value
//	string, []byte, [n]byte    the bytes
//	bool, integers             a varint, zigzag where it has a sign
//	float64                    8 bytes
//	error                      see Errors
//	encoding.BinaryMarshaler   what it says
//
// So a field that one version has and another does not is passed over, or zero: peers of
// two versions talk to each other while they are being replaced one by one. encoding/json
// would do that too, but changes strings that are not UTF-8, and encoding/gob sends the
// types each time and is not made for bytes that lie. What is sent for each record (produce,
// fetch) does not come here: it has a fixed layout of its own.
//
// Decoding never panics, goes a bounded depth, and allocates at most Amplification times
// the bytes that it reads.
package wire
