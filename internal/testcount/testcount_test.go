package testcount

import "testing"

func TestN(t *testing.T) {
	d := divisor()
	for _, n := range []int{1, 9, 10, 1000} {
		want := n / d
		if want == 0 {
			want = 1
		}
		if got := N(n); got != want {
			t.Errorf("N(%d) = %d with divisor %d, want %d", n, got, d, want)
		}
	}
}
