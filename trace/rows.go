package trace

import "github.com/outsight-vmi/outsight/table"

// Documented is [Columns] as encoders, filters and help have columns.
func Documented() []table.Column { return documented }

var documented = func() (list []table.Column) {
	for _, c := range Columns {
		list = append(list, table.Column{Name: c.Name, Type: c.Type, Doc: c.Doc, Extra: c.Extra})
	}
	return list
}()

// Fill makes row the row of e: a cell for each column that is wanted, and for all if wanted is nil. The row has as many cells
// as there are columns, and refers to e.
func Fill(row table.Row, e *Event, wanted table.Selection) {
	if wanted == nil {
		for i := range Columns {
			row[i] = Columns[i].Get(e)
		}
		return
	}
	for _, i := range wanted {
		row[i] = Columns[i].Get(e)
	}
}
