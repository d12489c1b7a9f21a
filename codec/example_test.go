package codec_test

import (
	"fmt"

	"github.com/x/embedlog/codec"
)

func ExampleJSON() {
	type order struct{ Cents int }
	b, err := codec.JSON[order]{}.Append(nil, order{Cents: 450})
	fmt.Println(string(b), err)
	v, err := codec.JSON[order]{}.Decode(b)
	fmt.Println(v.Cents, err)
	// Output:
	// {"Cents":450} <nil>
	// 450 <nil>
}
