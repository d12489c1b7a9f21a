package kafka

import (
	"math/bits"
	"sync"
)

// frames is memory for requests that are not kept. Classes are powers of two.
type frames struct {
	classes [frameClasses]sync.Pool // of *[]byte
}

const (
	smallestFrame = 12 // bits: 4 KiB
	frameClasses  = 11 // up to 4 MiB
)

func frameClass(n int) int {
	return max(bits.Len(uint(max(n, 1)-1))-smallestFrame, 0)
}

// get returns n bytes, with anything in them. free is for put; it may be nil.
func (f *frames) get(n int) (b []byte, free *[]byte) {
	class := frameClass(n)
	if class >= frameClasses {
		return make([]byte, n), nil
	}
	free, ok := f.classes[class].Get().(*[]byte)
	if !ok {
		b := make([]byte, 1<<(smallestFrame+class))
		free = &b
	}
	return (*free)[:n], free
}

// put gives the memory back.
func (f *frames) put(free *[]byte) {
	if free != nil {
		f.classes[frameClass(len(*free))].Put(free)
	}
}
