class OptunaSampler: pass
class OptunaPruner: pass
