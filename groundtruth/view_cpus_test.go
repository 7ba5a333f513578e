package groundtruth

func init() { register(viewCase{view: "cpus", keys: []string{"cpu"}}) }
