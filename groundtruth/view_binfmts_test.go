package groundtruth

func init() {
	register(viewCase{view: "binfmts", keys: []string{"kind", "name"}, ignore: func(row map[string]any) bool { return row["kind"] == "handler" }})
}
