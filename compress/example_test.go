package compress_test

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/x/embedlog/compress"
)

func Example() {
	records := bytes.Repeat([]byte("the same again, "), 1000)
	packed, err := compress.Encode(nil, records, compress.Zstd, 0)
	if err != nil {
		panic(err)
	}
	fmt.Println("smaller:", len(packed) < len(records)/100)

	back, err := compress.Decode(nil, packed, compress.Zstd, 1<<20)
	fmt.Println("the same:", bytes.Equal(back, records), err)

	_, err = compress.Decode(nil, packed, compress.Zstd, 1000) // no more than this
	fmt.Println("too large:", errors.Is(err, compress.ErrTooLarge))
	// Output:
	// smaller: true
	// the same: true <nil>
	// too large: true
}
