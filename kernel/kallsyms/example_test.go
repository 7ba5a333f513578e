package kallsyms_test

import (
	"fmt"

	"github.com/outsight-vmi/outsight/kernel/kallsyms"
	"github.com/outsight-vmi/outsight/linux/synth"
)

// The symbol table in a piece of a kernel's read-only data, of which nothing is
// known but its bytes.
func Example() {
	symbols := []synth.Symbol{{Name: "_text", Type: 'T'}}
	for i := range 4000 {
		symbols = append(symbols, synth.Symbol{Name: fmt.Sprintf("do_something_%d", i), Type: 't', Rel: int64(4096 + 64*i)})
	}
	data := make([]byte, 64)
	data = append(data, synth.Kallsyms(synth.Place, symbols, 1<<20, 0)...)

	table, err := kallsyms.Find(data, kallsyms.NextIndex(data, 0))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(table.N, table.Encoding)
	fmt.Println(table.Lookup("do_something_7")["do_something_7"].Rel)
	fmt.Println(table.At(4096 + 64*7 + 3))
	// Output:
	// 4001 place-relative
	// 4544
	// do_something_7 3 true
}
