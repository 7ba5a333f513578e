package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// views report the rows of one view of outsight's each, in the words of the guest's own
// kernel: objects with some of that view's columns, under the same names. A file
// view_NAME.go adds each.
var views = map[string]func(emit func(row any) error) error{}

// tellView prints the rows of a view, a line each, and then one that counts them: what
// was cut short has none.
func tellView(enc *json.Encoder, name string) error {
	tell, ok := views[name]
	if !ok {
		return fmt.Errorf("no view %q; there are %s", name, strings.Join(slices.Sorted(maps.Keys(views)), ", "))
	}
	rows := 0
	if err := tell(func(row any) error {
		rows++
		return enc.Encode(row)
	}); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return enc.Encode(map[string]any{"rows_in_all": rows})
}
