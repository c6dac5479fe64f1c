"""A network of one's own as a `Denoiser`, (x, sigma) -> x0_hat: three lines to the optimum.

    F = from_prediction(net, "eps", process=VP())                              # net(x_t, t) predicts the noise
    D = OptimalDenoiser(load("digits"))
    print(agreement(F, D, [0.1, 1.0, 5.0]).gap)                                # E‖F − D‖² at each noise level

and as a sampler, from the same noises as the optimum: `compare({"mine": (F, {"sigmas": karras(18)})}, D, noises,
reference=FlowMap(D)(noises, 80.0))`. What differs between conventions is where x is put, what stands for sigma, and
what comes out:

    adapter                               network         is asked at x_t     with                      predicts
    from_prediction(net, kind, process=)  net(x_t, t)     scale(t) x          t of sigma(t) = sigma     any kind
    from_flow(net)                        net(x_t, t)     x/(1 + sigma)       t = sigma/(1 + sigma)     eps − x0
    from_ddpm(net, alphas_cumprod, kind)  net(x_t, step)  x/√(1 + sigma²)     ā(step) = 1/(1 + sigma²)  eps, x0, v …
    from_edm(net)                         net(x, sigma)   x                   sigma                     x0
    from_edm_raw(net)                     net(x, c)       x/√(sigma² + σ_d²)  c = ¼ ln sigma            EDM's F
    from_times(net, schedule)             net(x_t, t)     signal(t) x         t of noise/signal = sigma x0
    from_unet(unet, scheduler)            diffusers' UNet2DModel: as one of these, the scheduler says which
    from_diffusers(folder)                a pipeline on disk: likewise

Kinds are those of `optimal.parametrize`: eps, v, x0, score, velocity, flow. The score of Song et al. 2021 is that of
x_t; a score network that is given sigma itself has `process=EDM(math.inf)`, as has one that predicts the velocity
(x − x0)/sigma. A callable that maps (x, sigma) to x0_hat needs no adapter.

A network is asked without gradients, in evaluation mode (and left in the mode that it was in), on the device and in the
precision of its weights, its noise level in float32 or float64; the answer has x's. Networks that answer with a tuple,
a dictionary or a diffusers output are understood, of those that learn their variance the mean is taken, and what is
called as net(t, x) takes order="tx". value_range= says that its images have values in (0, 1), say, where ours have
[−1, 1]: x, sigma and x0_hat stay in ours, all else is in its own. clip= cuts x0_hat as samplers of images do. What an
adapter makes can be pickled and deep-copied where its network can, and takes further arguments of its network at every
call: class_labels, say, one a row.

    >>> from neural import agreement
    >>> from optimal import OptimalDenoiser, load
    >>> def net(x_t, t):                                                       # that all data lie at 0, by flow
    ...     return x_t / t[:, None]
    >>> F = from_flow(net)
    >>> D = OptimalDenoiser(load("two-points"))
    >>> agreement(F, D, [0.1, 1.0, 5.0]).gap_share
    tensor([1.0000, 1.0000, 1.0000], dtype=torch.float64)
"""

from .adapted import Adapted as Adapted
from .edm import from_edm as from_edm
from .edm import from_edm_raw as from_edm_raw
from .folders import from_diffusers as from_diffusers
from .prediction import from_flow as from_flow
from .prediction import from_prediction as from_prediction
from .scheduled import SCHEDULERS as SCHEDULERS
from .scheduled import from_unet as from_unet
from .table import Tabulated as Tabulated
from .table import from_ddpm as from_ddpm
from .times import from_times as from_times
