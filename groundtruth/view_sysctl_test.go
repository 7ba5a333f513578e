package groundtruth

// Those that the view shows without a value, and those that count, are not compared.
func init() {
	register(viewCase{view: "sysctl", keys: []string{"name"}, ignore: func(row map[string]any) bool {
		return row["value"] == nil
	}, subset: true})
}
