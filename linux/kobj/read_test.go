package kobj

import (
	"slices"
	"testing"
)

func TestBitNames(t *testing.T) {
	if got := BitNames(0b1011, map[uint]string{0: "a", 3: "d"}); !slices.Equal(got, []string{"a", "bit1", "d"}) {
		t.Error(got)
	}
	if got := BitNames(0, nil); got != nil {
		t.Error(got)
	}
}
