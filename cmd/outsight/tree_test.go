package main

import (
	"slices"
	"testing"

	"github.com/outsight-vmi/outsight/table"
)

func TestDescendants(t *testing.T) {
	columns := []table.Column{{Name: "ppid"}, {Name: "pid"}}
	family := [][2]int64{{0, 1}, {1, 5}, {5, 6}, {1, 7}, {6, 8}, {10, 9}, {9, 10}} // 9 and 10 are each other's parents
	for name, c := range map[string]struct{ asked, kept, absent []int64 }{
		"one":          {[]int64{5}, []int64{5, 6, 8}, nil},
		"one of many":  {[]int64{7}, []int64{7}, nil},
		"two":          {[]int64{7, 6, 6}, []int64{6, 7, 8}, nil},
		"a circle":     {[]int64{9}, []int64{9, 10}, nil},
		"not there":    {[]int64{99, 8}, []int64{8}, []int64{99}},
		"only nothing": {[]int64{99}, nil, []int64{99}},
	} {
		var rows []table.Row
		for _, f := range family {
			rows = append(rows, table.Row{table.IntValue(f[0]), table.IntValue(f[1])})
		}
		kept, absent := descendants(rows, columns, c.asked)
		var got []int64
		for _, r := range kept {
			got = append(got, r[1].Int())
		}
		if !slices.Equal(got, c.kept) || !slices.Equal(absent, c.absent) {
			t.Errorf("%s: %v, %v", name, got, absent)
		}
	}
}
