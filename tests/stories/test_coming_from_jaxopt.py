"""The page for users of JAXopt names all that JAXopt shows, and both sides of it compute the same numbers."""

import importlib
import inspect
import pkgutil
import re
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nestor
from nestor import proximal

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    jaxopt = pytest.importorskip("jaxopt")
optax = pytest.importorskip("optax")
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "coming-from-jaxopt.md"
X = jax.random.normal(jax.random.key(4), (20, 5))
Y = jax.random.normal(jax.random.key(5), (20,))
V, M = jax.random.normal(jax.random.key(0), (6,)), jax.random.normal(jax.random.key(1), (4, 4))
NORMAL, ZERO = jnp.arange(1.0, 7.0), jnp.zeros(5)
A, B = X[:2].repeat(2, 1)[:, :6], jnp.array([1.0, 2.0])
ROWS, COLUMNS = jnp.array([0.2, 0.3, 0.1, 0.4]), jnp.array([0.25, 0.25, 0.3, 0.2])
LABELS, SCORES = jnp.array([0, 1, 1, 0]), jnp.array([0.3, -1.0, 2.0, 0.1])


def smooth(w):
    return jnp.mean(jnp.log(jnp.cosh(X @ w - Y))) + 0.05 * jnp.sum(w**2)


def residuals(w):
    return jnp.tanh(X @ w) - Y


def equations(z):
    return jnp.array([z[0] ** 2 + z[1] - 1, z[0] - z[1] ** 3])


def public(module):
    for name, thing in vars(module).items():
        if not name.startswith("_") and not inspect.ismodule(thing):
            yield name


def test_the_page_has_every_name():
    words = set(re.findall(r"\w+", PAGE.read_text(encoding="utf-8")))
    rooms = [m.name for m in pkgutil.iter_modules(jaxopt.__path__) if not m.name.startswith("_")]
    names = {name for room in rooms for name in public(importlib.import_module(f"jaxopt.{room}"))}
    typing = {"Any", "Callable", "Optional", "Tuple", "Union", "NamedTuple"}
    missing = (names | set(public(jaxopt))) - words - typing
    assert missing - {"warnings", "test_util", "annotations"} == set()


def set_(name, ours, *settings, x=V):
    return lambda: (ours.project(x), getattr(jaxopt.projection, f"projection_{name}")(x, *settings))


def penalty(name, ours, *settings):
    return lambda: (ours.prox(V, 0.7), getattr(jaxopt.prox, f"prox_{name}")(V, *settings, 0.7))


def plan(verb, name, ours, *marginals):
    tight = lambda fun: jaxopt.LBFGS(fun=fun, tol=1e-12, maxiter=2000, linesearch="zoom")  # noqa: E731
    theirs = getattr(jaxopt.projection, name)
    return lambda: (getattr(ours, verb)(M), theirs(M, *marginals, make_solver=tight))


def solved(theirs, **options):
    return lambda: (nestor.minimize(smooth, ZERO, **options).x, theirs())


def run(name, *run_with, fun=smooth, **settings):
    return lambda: getattr(jaxopt, name)(fun, tol=1e-10, maxiter=5000, **settings).run(ZERO, *run_with).params


def quadratic():
    Q, c = X.T @ X + jnp.eye(5), X.T @ Y
    return Q, c, jnp.ones((1, 5)), jnp.ones(1), jnp.eye(5), jnp.full(5, 0.3)


def equality_program():
    Q, c, A, b, _, _ = quadratic()
    ours = nestor.minimize(
        lambda z: z @ Q @ z / 2 + c @ z, ZERO, constraints=nestor.Constraint(lambda z: A @ z, equal=b)
    )
    theirs = jaxopt.EqualityConstrainedQP(tol=1e-12).run(params_obj=(Q, c), params_eq=(A, b)).params
    return (ours.x, ours.kkt.constraints[0]), (theirs.primal, theirs.dual_eq)


def program():
    Q, c, A, b, G, h = quadratic()
    theirs = jaxopt.OSQP(tol=1e-9).run(params_obj=(Q, c), params_eq=(A, b), params_ineq=(G, h)).params
    return nestor.solve_qp(Q, c, A=A, b=b, G=G, h=h).x, theirs.primal


def linear_solve(name, method, symmetric=False):
    matrix = X[:5].T @ X[:5] + jnp.eye(5) if symmetric else X[:5] + 3 * jnp.eye(5)
    operator = nestor.linear.Operator(lambda v: matrix @ v, Y[:5], symmetric, symmetric)
    theirs = getattr(jaxopt.linear_solve, f"solve_{name}")
    return lambda: (nestor.linear.solve(operator, Y[:5], method), theirs(lambda v: matrix @ v, Y[:5]))


def loss(name, ours):
    theirs = getattr(jaxopt.loss, name)
    two = name.startswith(("binary", "huber"))
    return lambda: (ours(), jax.vmap(theirs)(LABELS, SCORES) if two else theirs(2, SCORES))


PAIRS = {
    "non_negative": set_("non_negative", proximal.NonNegative()),
    "box": set_("box", proximal.Box(-0.3, 0.4), (-0.3, 0.4)),
    "hypercube": set_("hypercube", proximal.Box(0.0, 0.7), 0.7),
    "simplex": set_("simplex", proximal.Simplex(2.0), 2.0),
    "sparse simplex": set_("sparse_simplex", proximal.SparseSimplex(3), 3),
    "l1 sphere": set_("l1_sphere", proximal.L1Sphere(0.8), 0.8),
    "l1 ball": set_("l1_ball", proximal.L1Ball(0.8), 0.8),
    "l2 sphere": set_("l2_sphere", proximal.L2Sphere(0.8), 0.8),
    "l2 ball": set_("l2_ball", proximal.L2Ball(0.8), 0.8),
    "linf ball": set_("linf_ball", proximal.LInfBall(0.8), 0.8),
    "hyperplane": set_("hyperplane", proximal.Hyperplane(NORMAL, 2.0), (NORMAL, 2.0)),
    "halfspace": set_("halfspace", proximal.Halfspace(NORMAL, -2.0), (NORMAL, -2.0)),
    "affine set": set_("affine_set", proximal.Affine(A, B), (A, B)),
    "box section": set_(
        "box_section",
        proximal.BoxSection(0.0, 1.0, NORMAL, 3.0),
        (jnp.zeros(6), jnp.ones(6), NORMAL, 3.0),
    ),
    "transport": plan("project", "projection_transport", proximal.Transport(ROWS, COLUMNS), (ROWS, COLUMNS)),
    "transport kl": plan(
        "project_kl", "kl_projection_transport", proximal.Transport(ROWS, COLUMNS), (ROWS, COLUMNS)
    ),
    "birkhoff": plan("project", "projection_birkhoff", proximal.Birkhoff()),
    "birkhoff kl": plan("project_kl", "kl_projection_birkhoff", proximal.Birkhoff()),
    "none": lambda: (proximal.Free().prox(V, 0.7), jaxopt.prox.prox_none(V)),
    "lasso": penalty("lasso", proximal.Lasso(0.3), 0.3),
    "non-negative lasso": penalty("non_negative_lasso", proximal.NonNegativeLasso(0.3), 0.3),
    "elastic net": penalty("elastic_net", proximal.ElasticNet(0.3, 0.15), (0.3, 0.5)),
    "group lasso": penalty("group_lasso", proximal.GroupLasso(0.3), 0.3),
    "ridge": penalty("ridge", proximal.Ridge(0.3), 0.3),
    "non-negative ridge": penalty("non_negative_ridge", proximal.NonNegativeRidge(0.3), 0.3),
    "isotonic": lambda: (proximal.Monotone().project(V), jaxopt.isotonic.isotonic_l2_pav(V)),
    "isotonic, down": lambda: (
        jnp.clip(-proximal.Monotone().project(-V), -0.1, 0.1),
        jaxopt.isotonic.isotonic_l2_pav(V, y_min=-0.1, y_max=0.1, increasing=False),
    ),
    **{
        name: solved(run(name), solver=getattr(nestor, name)())
        for name in ("GradientDescent", "BFGS", "LBFGS", "NonlinearCG")
    },
    **{
        name: lambda name=name: (
            nestor.least_squares(residuals, ZERO, solver=getattr(nestor, name)()).x,
            run(name, fun=residuals)(),
        )
        for name in ("GaussNewton", "LevenbergMarquardt")
    },
    "ScipyMinimize": solved(
        lambda: jaxopt.ScipyMinimize(fun=smooth, tol=1e-9).run(ZERO).params, method="BFGS"
    ),
    "ScipyBoundedLeastSquares": lambda: (
        nestor.least_squares(residuals, ZERO, bounds=(-0.1, 0.1)).x,
        jaxopt.ScipyBoundedLeastSquares(fun=residuals, method="trf")
        .run(ZERO, bounds=(ZERO - 0.1, ZERO + 0.1))
        .params,
    ),
    "Broyden": lambda: (
        nestor.find_root(equations, jnp.ones(2), solver=nestor.Broyden()).x,
        jaxopt.Broyden(equations, tol=1e-10).run(jnp.ones(2)).params,
    ),
    "FixedPointIteration": lambda: (
        nestor.fixed_point(lambda z: jnp.cos(z) / 2, ZERO, solver=nestor.Picard()).x,
        jaxopt.FixedPointIteration(lambda z: jnp.cos(z) / 2, tol=1e-12).run(ZERO).params,
    ),
    "AndersonAcceleration": lambda: (
        nestor.fixed_point(lambda z: jnp.cos(z) / 2, ZERO, solver=nestor.Anderson()).x,
        jaxopt.AndersonAcceleration(lambda z: jnp.cos(z) / 2, tol=1e-12).run(ZERO).params,
    ),
    "LBFGSB": solved(run("LBFGSB", (ZERO - 0.05, ZERO + 0.05)), bounds=(-0.05, 0.05)),
    "ProjectedGradient": solved(
        run("ProjectedGradient", 0.1, projection=jaxopt.projection.projection_l1_ball),
        prox=proximal.L1Ball(0.1),
        solver=nestor.ProjectedGradient(),
    ),
    "ProximalGradient": solved(
        run("ProximalGradient", 0.05, prox=jaxopt.prox.prox_lasso), prox=proximal.Lasso(0.05)
    ),
    "BlockCoordinateDescent": lambda: (
        nestor.minimize(
            lambda w: jnp.mean((X @ w - Y) ** 2) / 2,
            ZERO,
            prox=proximal.Lasso(0.05),
            solver=nestor.BlockCoordinateDescent(),
        ).x,
        jaxopt.BlockCoordinateDescent(
            jaxopt.objective.least_squares, jaxopt.prox.prox_lasso, tol=1e-10, maxiter=5000
        )
        .run(ZERO, hyperparams_prox=0.05, data=(X, Y))
        .params,
    ),
    "EqualityConstrainedQP": equality_program,
    "OSQP": program,
    "solve_cg": linear_solve("cg", nestor.CG(), symmetric=True),
    "solve_cholesky": linear_solve("cholesky", nestor.Cholesky(), symmetric=True),
    "solve_gmres": linear_solve("gmres", nestor.GMRES()),
    "solve_bicgstab": linear_solve("bicgstab", nestor.BiCGStab()),
    "solve_lu": linear_solve("lu", nestor.LU()),
    "binary logistic": loss("binary_logistic_loss", lambda: jax.nn.softplus(SCORES) - LABELS * SCORES),
    "multiclass logistic": loss("multiclass_logistic_loss", lambda: jax.nn.logsumexp(SCORES) - SCORES[2]),
    "huber": loss("huber_loss", lambda: jax.vmap(proximal.Huber().value)(SCORES - LABELS)),
    "binary hinge": loss("binary_hinge_loss", lambda: optax.losses.hinge_loss(SCORES, 2 * LABELS - 1)),
    "multiclass sparsemax": loss(
        "multiclass_sparsemax_loss",
        lambda: optax.losses.multiclass_sparsemax_loss(SCORES[None], jnp.array([2]))[0],
    ),
    "sparse plus": lambda: (
        jnp.where(V <= -1, 0, jnp.where(V >= 1, V, (V + 1) ** 2 / 4)),
        jaxopt.loss.sparse_plus(V),
    ),
    "sparse sigmoid": lambda: (jnp.clip((V + 1) / 2, 0, 1), jaxopt.loss.sparse_sigmoid(V)),
    "least squares": lambda: (
        jnp.mean((X @ ZERO - Y) ** 2) / 2 + 0.3 * jnp.sum(ZERO**2) / 2,
        jaxopt.objective.ridge_regression(ZERO, 0.3, (X, Y)),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_both_sides_agree(name: str):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        ours, theirs = PAIRS[name]()
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(mine, other, atol=2e-6)
