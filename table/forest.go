package table

// Branch is a row in its place in a forest.
type Branch struct {
	Row   Row
	Depth int    // 0 for a root
	Lines string // box-drawing lines that lead to it, for a terminal
}

// Forest puts rows into the order of a tree: each row names itself in column id
// and its parent in column parent. Rows whose parent is not there are roots. A
// guest can make parents a circle: then the first of its rows is taken for a
// root, so that every row appears exactly once. Children keep the order of rows.
func Forest(rows []Row, id, parent int) []Branch {
	f := forest{rows: rows, children: make([][]int, len(rows)), placed: make([]bool, len(rows))}
	byID := make(map[uint64]int, len(rows))
	for i, r := range rows {
		if _, taken := byID[r[id].num]; !taken && !r[id].IsNull() {
			byID[r[id].num] = i
		}
	}
	var roots []int
	for i, r := range rows {
		p, ok := byID[r[parent].num]
		if !ok || p == i || r[parent].IsNull() {
			roots = append(roots, i)
			continue
		}
		f.children[p] = append(f.children[p], i)
	}
	for _, i := range roots {
		f.plant(i)
	}
	for i := range rows { // what is left hangs on a circle
		if !f.placed[i] {
			f.plant(i)
		}
	}
	return f.out
}

type forest struct {
	rows     []Row
	children [][]int
	placed   []bool
	out      []Branch
}

// plant places a tree. It keeps its own stack: a guest decides how deep it is.
func (f *forest) plant(root int) {
	type todo struct {
		row    int
		depth  int
		lines  string // of the row
		indent string // of its children
	}
	stack := []todo{{row: root}}
	for len(stack) > 0 {
		t := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if f.placed[t.row] {
			continue
		}
		f.placed[t.row] = true
		f.out = append(f.out, Branch{Row: f.rows[t.row], Depth: t.depth, Lines: t.lines})

		kids := f.children[t.row]
		for k := len(kids) - 1; k >= 0; k-- {
			c := todo{row: kids[k], depth: t.depth + 1, lines: t.indent + "├─ ", indent: t.indent + "│  "}
			if k == len(kids)-1 {
				c.lines, c.indent = t.indent+"└─ ", t.indent+"   "
			}
			if c.depth > maxIndent {
				c.lines, c.indent = t.lines, t.indent
			}
			stack = append(stack, c)
		}
	}
}

// maxIndent is the depth below which lines stop growing: a chain of 30000
// parents would otherwise take gigabytes to draw.
const maxIndent = 64
