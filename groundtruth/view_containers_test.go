package groundtruth

func init() {
	// The guest counts starting times in ticks of the clock.
	register(viewCase{view: "containers", near: map[string]float64{"started": 0.1}})
}
