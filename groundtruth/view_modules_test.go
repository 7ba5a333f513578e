package groundtruth

func init() { register(viewCase{view: "modules", keys: []string{"name"}}) }
