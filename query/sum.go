package query

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/bits"
	"reflect"
)

// Number is what can be summed.
type Number interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~float32 | ~float64
}

// ErrOverflow says that a sum of integers has no room in their type.
var ErrOverflow = errors.New("query: integer overflow")

// sum is an exact sum that terms can be taken out of. Its parts are never written to again: a sum is a value.
type sum struct {
	n int64 // terms, where somebody counts them
	// Of integers: a number of 128 bits, in two's complement. 2^64 terms have room.
	hi int64
	lo uint64
	// Of floating-point numbers: parts do not overlap, and their exact sum is the sum of all finite terms
	// (Shewchuk, "Adaptive Precision Floating-Point Arithmetic and Fast Robust Geometric Predicates", 1997, section 2: Grow-Expansion).
	// Where that would overflow, big has the sum.
	parts         []float64
	big           *big.Float
	inf, neg, nan int64 // how many of those are among the terms
}

// bigPrec is enough for all sums of float64: from 2^1024 times 2^63 terms down to 2^-1074.
const bigPrec = 2200

func isFloat[N Number]() bool {
	k := reflect.TypeFor[N]().Kind()
	return k == reflect.Float32 || k == reflect.Float64
}

// plus is the sum with one more term, or with one less.
func plus[N Number](s sum, x N, less bool) sum {
	if isFloat[N]() {
		return s.plusFloat(float64(x), less)
	}
	var hi int64
	lo := uint64(x)
	if x < 0 {
		hi = -1
	}
	if less {
		var borrow uint64
		s.lo, borrow = bits.Sub64(s.lo, lo, 0)
		s.hi = s.hi - hi - int64(borrow)
	} else {
		var carry uint64
		s.lo, carry = bits.Add64(s.lo, lo, 0)
		s.hi = s.hi + hi + int64(carry)
	}
	return s
}

func (s sum) plusFloat(x float64, less bool) sum {
	by := int64(1)
	if less {
		by = -1
	}
	switch {
	case math.IsNaN(x):
		s.nan += by
		return s
	case math.IsInf(x, 1):
		s.inf += by
		return s
	case math.IsInf(x, -1):
		s.neg += by
		return s
	case less:
		x = -x
	}
	if s.big == nil {
		parts := make([]float64, 0, len(s.parts)+1)
		q := x
		for _, p := range s.parts {
			var low float64
			q, low = twoSum(q, p)
			if low != 0 {
				parts = append(parts, low)
			}
		}
		if !math.IsInf(q, 0) && !math.IsNaN(q) {
			if q != 0 {
				parts = append(parts, q)
			}
			s.parts = parts
			return s
		}
		s.big = s.exact()
		s.parts = nil
	}
	s.big = new(big.Float).SetPrec(bigPrec).Add(s.big, big.NewFloat(x))
	return s
}

// twoSum is a+b rounded, and what the rounding left out, exactly. (Knuth; Shewchuk 1997, theorem 7)
func twoSum(a, b float64) (sum, rest float64) {
	sum = a + b
	bv := sum - a
	return sum, (a - (sum - bv)) + (b - bv)
}

func (s sum) exact() *big.Float {
	if s.big != nil {
		return s.big
	}
	x := new(big.Float).SetPrec(bigPrec)
	for _, p := range s.parts {
		x.Add(x, big.NewFloat(p))
	}
	return x
}

// float is the sum as a floating-point number, rounded once.
func (s sum) float() float64 {
	switch {
	case s.nan > 0 || s.inf > 0 && s.neg > 0:
		return math.NaN()
	case s.inf > 0:
		return math.Inf(1)
	case s.neg > 0:
		return math.Inf(-1)
	case s.big == nil && len(s.parts) == 0:
		x, _ := new(big.Float).SetInt(s.integer()).Float64()
		return x
	case s.big == nil && len(s.parts) == 1:
		return s.parts[0]
	}
	x, _ := s.exact().Float64()
	return x
}

func (s sum) integer() *big.Int {
	x := new(big.Int).Lsh(big.NewInt(s.hi), 64)
	return x.Add(x, new(big.Int).SetUint64(s.lo))
}

// total is the sum as a number of its terms' type.
func total[N Number](s sum) (N, error) {
	if isFloat[N]() {
		return N(s.float()), nil
	}
	x := N(s.lo)
	var hi int64
	if x < 0 {
		hi = -1
	}
	if uint64(x) != s.lo || hi != s.hi {
		return 0, fmt.Errorf("%w: a sum of %T is %v", ErrOverflow, x, s.integer())
	}
	return x, nil
}

// sumCodec writes a sum: version 1, a byte for what follows, and the numbers, fixed or varint.
type sumCodec struct{}

const (
	sumVersion = 1
	sumBig     = 1 << 0
)

// Append implements Codec.
func (sumCodec) Append(dst []byte, s sum) ([]byte, error) {
	var flags byte
	if s.big != nil {
		flags |= sumBig
	}
	dst = append(dst, sumVersion, flags)
	for _, x := range []int64{s.n, s.hi, s.inf, s.neg, s.nan} {
		dst = binary.AppendVarint(dst, x)
	}
	dst = binary.BigEndian.AppendUint64(dst, s.lo)
	if s.big != nil {
		b, err := s.big.GobEncode()
		return append(dst, b...), err
	}
	for _, p := range s.parts {
		dst = binary.BigEndian.AppendUint64(dst, math.Float64bits(p))
	}
	return dst, nil
}

var errSum = errors.New("query: invalid encoding of a sum")

// Decode implements Codec.
func (sumCodec) Decode(b []byte) (s sum, err error) {
	if len(b) < 2 || b[0] != sumVersion || b[1]&^sumBig != 0 {
		return s, errSum
	}
	flags := b[1]
	b = b[2:]
	for _, x := range []*int64{&s.n, &s.hi, &s.inf, &s.neg, &s.nan} {
		v, n := binary.Varint(b)
		if n <= 0 {
			return sum{}, errSum
		}
		*x, b = v, b[n:]
	}
	if len(b) < 8 {
		return sum{}, errSum
	}
	s.lo, b = binary.BigEndian.Uint64(b), b[8:]
	if flags&sumBig != 0 {
		s.big = new(big.Float)
		if err := s.big.GobDecode(b); err != nil || s.big.Prec() != bigPrec {
			return sum{}, errSum
		}
		return s, nil
	}
	if len(b)%8 != 0 {
		return sum{}, errSum
	}
	for ; len(b) > 0; b = b[8:] {
		p := math.Float64frombits(binary.BigEndian.Uint64(b))
		if math.IsNaN(p) || math.IsInf(p, 0) {
			return sum{}, errSum
		}
		s.parts = append(s.parts, p)
	}
	return s, nil
}
