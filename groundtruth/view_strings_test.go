package groundtruth

func init() {
	// Strings of ASCII: how the view knows where one of UTF-16 begins is its own affair.
	register(viewCase{
		view: "strings", keys: []string{"address"}, args: []string{"--pid", "1"}, subset: true,
		ignore: func(row map[string]any) bool { return row["encoding"] != "ascii" },
	})
}
