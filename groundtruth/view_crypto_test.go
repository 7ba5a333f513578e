package groundtruth

func init() { register(viewCase{view: "crypto", keys: []string{"name", "driver"}}) }
