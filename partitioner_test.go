package embedlog

import (
	"fmt"
	"testing"
)

// The vectors are those of Kafka's UtilsTest.testMurmur2.
func TestMurmur2IsKafkas(t *testing.T) {
	for key, want := range map[string]int32{
		"21":                         -973932308,
		"foobar":                     -790332482,
		"a-little-bit-long-string":   -985981536,
		"a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		if got := int32(murmur2([]byte(key))); got != want {
			t.Errorf("murmur2(%q) = %d, want %d", key, got, want)
		}
		for _, n := range []int{1, 2, 3, 8, 1000} {
			// toPositive clears the sign, then modulo: not the absolute value.
			if got, p := KeyPartition([]byte(key), n), int32(uint32(want)&0x7fffffff)%int32(n); got != p {
				t.Errorf("KeyPartition(%q, %d) = %d, want %d", key, n, got, p)
			}
		}
	}
}

// Every partition gets its turn, in runs, and the same share.
func TestStickyTurns(t *testing.T) {
	for _, size := range []int{1, 100, 5000, stickyBytes, 3*stickyBytes + 1} {
		t.Run(fmt.Sprintf("size=%d", size), func(t *testing.T) {
			const partitions, rounds = 4, 16
			var s sticky
			bytes := make([]int, partitions)
			changes, last, n := 0, int32(-1), partitions*rounds*stickyBytes/size
			for range n {
				p := s.next(size, partitions)
				if p < 0 || p >= partitions {
					t.Fatalf("partition %d of %d", p, partitions)
				}
				if p != last {
					changes++
				}
				bytes[p], last = bytes[p]+size, p
			}
			for p, got := range bytes {
				if want := n * size / partitions; got < want-size-stickyBytes || got > want+size+stickyBytes {
					t.Errorf("partition %d got %d bytes of %d, want about %d", p, got, n*size, want)
				}
			}
			if most := partitions*rounds + 1; changes > most {
				t.Errorf("%d changes of partition for %d records, want %d at most", changes, n, most)
			}
		})
	}
	var one sticky
	if p := one.next(1<<30, 1); p != 0 {
		t.Errorf("the only partition is %d", p)
	}
}

func BenchmarkMurmur2(b *testing.B) {
	for _, n := range []int{16, 100} {
		b.Run(fmt.Sprintf("size=%d", n), func(b *testing.B) {
			key := make([]byte, n)
			b.SetBytes(int64(n))
			for b.Loop() {
				KeyPartition(key, 8)
			}
		})
	}
}
