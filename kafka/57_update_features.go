package kafka

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// UpdateFeatures, versions 0 to 2. Features are what this version of the program
// does, and are in force from the beginning: that they should be as they are is all
// that can be asked for. (KIP-584, KIP-1022)

func init() { register(0, 2, updateFeatures) }

func updateFeatures(r *request, q *kmsg.UpdateFeaturesRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.UpdateFeaturesResponse)
	if err := r.grow(len(q.FeatureUpdates), plainBytes); err != nil {
		return nil, err
	}
	resp.Results = []kmsg.UpdateFeaturesResponseResult{}
	if !r.authorize(OpAlter, ResourceCluster, ClusterName) {
		resp.ErrorCode, resp.ErrorMessage = answerTo(errClusterDenied)
		return resp, nil
	}
	for _, u := range q.FeatureUpdates {
		if err := checkFeature(u.Feature, u.MaxVersionLevel); err != nil {
			// One that fails fails all.
			err = &refusal{codeInvalidUpdateVersion, fmt.Sprintf("The update failed for all features since the following feature had an error: %s", err)}
			resp.ErrorCode, resp.ErrorMessage = answerTo(err)
			resp.Results = []kmsg.UpdateFeaturesResponseResult{}
			return resp, nil
		}
		x := kmsg.NewUpdateFeaturesResponseResult() // versions 0 and 1
		x.Feature = u.Feature
		resp.Results = append(resp.Results, x)
	}
	return resp, nil
}

// checkFeature refuses what would change a feature.
func checkFeature(name string, level int16) error {
	for _, f := range features {
		if f.name != name {
			continue
		}
		if level != f.max {
			return fmt.Errorf("%s is %d with this version of the program, and cannot be %d", name, f.max, level)
		}
		return nil
	}
	return fmt.Errorf("there is no feature %s", name)
}
