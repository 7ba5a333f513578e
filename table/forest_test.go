package table_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/outsight-vmi/outsight/table"
)

func relation(pairs ...[2]int64) []table.Row {
	var rows []table.Row
	for _, p := range pairs {
		rows = append(rows, table.Row{table.IntValue(p[0]), table.IntValue(p[1])})
	}
	return rows
}

func TestForest(t *testing.T) {
	got := ""
	for _, b := range table.Forest(relation([2]int64{1, 0}, [2]int64{2, 0}, [2]int64{3, 1}, [2]int64{4, 3}, [2]int64{5, 1}), 0, 1) {
		got += fmt.Sprintf("%s%d\n", b.Lines, b.Row[0].Int())
	}
	same(t, "forest", got, `
1
├─ 3
│  └─ 4
└─ 5
2
`[1:])
}

// Whatever a guest claims about parents, every row appears exactly once.
func TestForestKeepsEveryRow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.Int64Range(0, 12)
		pairs := rapid.SliceOf(rapid.Map(rapid.SliceOfN(id, 2, 2), func(p []int64) [2]int64 { return [2]int64(p) })).Draw(t, "pairs")
		rows := relation(pairs...)
		seen := map[*table.Value]int{}
		for _, b := range table.Forest(rows, 0, 1) {
			seen[&b.Row[0]]++
		}
		for _, r := range rows {
			if seen[&r[0]] != 1 {
				t.Fatalf("row %v appears %d times", r, seen[&r[0]])
			}
		}
	})
}

// A chain as long as the pid space is drawn in bounded memory.
func TestForestOfOneChain(t *testing.T) {
	var rows []table.Row
	for i := range int64(50_000) {
		rows = append(rows, relation([2]int64{i + 1, i})...)
	}
	branches := table.Forest(rows, 0, 1)
	if last := branches[len(branches)-1]; last.Depth != 49_999 || len(last.Lines) > 1000 {
		t.Errorf("depth %d, %d bytes of lines", last.Depth, len(last.Lines))
	}
}
