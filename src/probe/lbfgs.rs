//! L-BFGS: the minimum of a smooth convex function (Liu and Nocedal 1989).
//!
//! Written here because no small, maintained crate has it. Convexity keeps it short: every line has one minimum, which
//! bisection brackets by the sign of the slope.

use std::collections::VecDeque;

/// Pairs of steps and gradient changes that approximate the inverse Hessian. Features of an encoder are correlated:
/// with 20 pairs, a probe of such features needs three times as many iterations.
const MEMORY: usize = 50;
/// A step is accepted if its slope has at most these fractions of the first slope, before and after the minimum of the
/// line. These are the approximate Wolfe conditions of Hager and Zhang (2005), which hold for slopes also where
/// differences of values are lost in rounding.
const SLOPE_BEFORE: f64 = 0.9;
const SLOPE_AFTER: f64 = 0.8;
/// The relative increase of a value that counts as rounding.
const ROUNDING: f64 = 1e-12;
/// Trial steps on one line.
const MAX_TRIALS: usize = 60;

/// The minimiser did not reach its tolerance.
#[derive(Debug)]
pub(super) struct NotConverged {
    /// Iterations until it stopped.
    pub iterations: usize,
}

/// A value of the function with its gradient there.
pub(super) struct Point {
    pub x: Vec<f64>,
    pub value: f64,
    pub gradient: Vec<f64>,
}

/// Minimises `function` from `start` until no element of the gradient exceeds `tolerance`. `function` returns the value
/// at a point and writes the gradient, which it is given as zeros.
pub(super) fn minimize(
    function: impl Fn(&[f64], &mut [f64]) -> f64,
    start: Vec<f64>,
    tolerance: f64,
    max_iterations: usize,
) -> Result<Vec<f64>, NotConverged> {
    let evaluate = |x: Vec<f64>| {
        let mut gradient = vec![0.0; x.len()];
        let value = function(&x, &mut gradient);
        Point { x, value, gradient }
    };
    let mut point = evaluate(start);
    let mut history = History::default();
    for iterations in 0..max_iterations {
        if point.gradient.iter().all(|g| g.abs() <= tolerance) {
            return Ok(point.x);
        }
        let direction = history.descent(&point.gradient);
        let next = search(&evaluate, &point, &direction).ok_or(NotConverged { iterations })?;
        history.add(difference(&next.x, &point.x), difference(&next.gradient, &point.gradient));
        point = next;
    }
    Err(NotConverged { iterations: max_iterations })
}

/// Returns a point x + t·direction that fulfils the conditions above, found by doubling and bisection of t.
fn search(evaluate: &impl Fn(Vec<f64>) -> Point, from: &Point, direction: &[f64]) -> Option<Point> {
    let slope = dot(&from.gradient, direction);
    let highest = from.value + ROUNDING * from.value.abs();
    let (mut low, mut high, mut t) = (0.0, f64::INFINITY, 1.0);
    for _ in 0..MAX_TRIALS {
        let mut x = from.x.clone();
        add_scaled(&mut x, t, direction);
        let point = evaluate(x);
        let slope_at_t = dot(&point.gradient, direction);
        // The comparisons are so that a NaN is too far.
        if !(point.value <= highest && slope_at_t <= -SLOPE_AFTER * slope) {
            high = t;
        } else if slope_at_t < SLOPE_BEFORE * slope {
            low = t;
        } else {
            return Some(point);
        }
        t = if high.is_finite() { f64::midpoint(low, high) } else { 2.0 * t };
    }
    None
}

/// The last steps s and gradient changes y, oldest first.
#[derive(Default)]
struct History {
    pairs: VecDeque<Pair>,
}

struct Pair {
    s: Vec<f64>,
    y: Vec<f64>,
    /// s · y, positive for a convex function
    curvature: f64,
}

impl History {
    fn add(&mut self, s: Vec<f64>, y: Vec<f64>) {
        let curvature = dot(&s, &y);
        if self.pairs.len() == MEMORY {
            self.pairs.pop_front();
        }
        self.pairs.push_back(Pair { s, y, curvature });
    }

    /// Returns −H·gradient with the approximate inverse Hessian H, by the two-loop recursion.
    fn descent(&self, gradient: &[f64]) -> Vec<f64> {
        let mut d: Vec<f64> = gradient.iter().map(|g| -g).collect();
        let mut alphas = Vec::with_capacity(self.pairs.len());
        for Pair { s, y, curvature } in self.pairs.iter().rev() {
            let alpha = dot(s, &d) / curvature;
            add_scaled(&mut d, -alpha, y);
            alphas.push(alpha);
        }
        if let Some(Pair { y, curvature, .. }) = self.pairs.back() {
            let scale = curvature / dot(y, y);
            d.iter_mut().for_each(|d| *d *= scale);
        }
        for (Pair { s, y, curvature }, alpha) in self.pairs.iter().zip(alphas.into_iter().rev()) {
            let beta = dot(y, &d) / curvature;
            add_scaled(&mut d, alpha - beta, s);
        }
        d
    }
}

/// Returns a − b.
fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

/// Returns a · b, by eight sums that a compiler can keep in vector registers.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a_lanes, a_rest) = a.as_chunks::<8>();
    let (b_lanes, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

/// Adds factor·`x` to `to`.
pub(super) fn add_scaled(to: &mut [f64], factor: f64, x: &[f64]) {
    to.iter_mut().zip(x).for_each(|(to, x)| *to += factor * x);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn badly_scaled_quadratic_reaches_its_minimum() {
        // Σ cᵢ·(xᵢ − i)² with curvatures from 1e-3 to 1e3.
        let curvature = |i: usize| 10f64.powi(i as i32 - 3);
        let function = |x: &[f64], gradient: &mut [f64]| {
            let mut value = 0.0;
            for (i, (x, g)) in x.iter().zip(gradient).enumerate() {
                let distance = x - i as f64;
                value += curvature(i) * distance * distance;
                *g = 2.0 * curvature(i) * distance;
            }
            value
        };
        let x = minimize(function, vec![50.0; 7], 1e-10, 500).unwrap();
        assert!(x.iter().enumerate().all(|(i, x)| (x - i as f64).abs() < 1e-6), "{x:?}");
    }

    #[test]
    fn iterations_are_bounded() {
        let linear = |x: &[f64], gradient: &mut [f64]| {
            gradient[0] = 1.0;
            x[0]
        };
        assert!(minimize(linear, vec![0.0], 1e-3, 5).is_err());
    }
}
